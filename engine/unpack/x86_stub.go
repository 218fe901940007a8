package unpack

func (w *Walker) unpackPE(o Object, p *peFile) error { return nil }
