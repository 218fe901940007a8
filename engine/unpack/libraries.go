package unpack

import (
	"bufio"
	"errors"
	"io"

	"github.com/nwaples/rardecode/v2"
	"github.com/pierrec/lz4/v4"
)

func unlz4(w *Walker, o Object) error {
	r := lz4.NewReader(bufio.NewReader(o.reader()))
	if err := r.Apply(lz4.ConcurrencyOption(1)); err != nil {
		return err
	}
	return w.Stream(bare(o.Name, ".tlz4", ".tar", ".lz4", ""), onlyReader{r})
}

// unrar reads RAR archives (versions 1.5 to 5) by rardecode, as one stream. The
// password of encrypted headers or files is not asked for.
func unrar(w *Walker, o Object) error {
	r, err := rardecode.NewReader(bufio.NewReader(o.reader()), rardecode.MaxDictionarySize(maxDictionary), rardecode.SkipCheck)
	if err != nil {
		return w.rarError(err)
	}
	for {
		if err := w.check(); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return w.rarError(err)
		}
		if h.Encrypted || h.HeaderEncrypted {
			w.encrypted()
			continue
		}
		if h.IsDir {
			continue
		}
		if err := w.Stream(h.Name, onlyReader{r}); err != nil {
			return err
		}
	}
}

func (w *Walker) rarError(err error) error {
	if errors.Is(err, rardecode.ErrArchiveEncrypted) || errors.Is(err, rardecode.ErrArchivedFileEncrypted) || errors.Is(err, rardecode.ErrBadPassword) {
		w.encrypted()
		return nil
	}
	return err
}
