package main

func kernelTests(g *guest) error { return nil }
