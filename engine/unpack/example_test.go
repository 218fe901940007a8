package unpack_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/unpack"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Open gives the members of one container; those that are containers themselves
// are opened by the caller, with the same budget.
func ExampleOpen() {
	var file bytes.Buffer
	z := gzip.NewWriter(&file)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "notes/hello.txt", Size: 5, Mode: 0o600}); err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(w, "hello"); err != nil {
		log.Fatal(err)
	}
	w.Close()
	z.Close()

	ctx := context.Background()
	budget := unpack.NewBudget(int64(file.Len()), 1000, 10<<20, 250, time.Now().Add(time.Minute))
	limit := func(l verdict.Limit) { fmt.Println("not looked at to the end:", l) }
	var visit unpack.Visit
	visit = func(o unpack.Object) error {
		head := make([]byte, min(o.Size, filetype.HeadSize))
		if _, err := o.Data.ReadAt(head, 0); err != nil && err != io.EOF {
			return err
		}
		kind := filetype.Detect(head)
		fmt.Println(o.Name, kind)
		return unpack.Open(ctx, kind, o, budget, limit, visit)
	}
	err := visit(unpack.Object{Name: "backup.tgz", Data: bytes.NewReader(file.Bytes()), Size: int64(file.Len())})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// backup.tgz gzip
	// backup.tar tar
	// notes/hello.txt text
}
