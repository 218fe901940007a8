package main

func installation(g *guest) error { return g.install("bulwark.deb") }
