package filetype_test

import (
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/filetype"
)

func ExampleDetect() {
	for _, head := range []string{"PK\x03\x04", "#!/bin/sh\n", "From: a@b.example\nSubject: x\n\n", "<html>", "\x7fELF\x02", "words"} {
		fmt.Println(filetype.Detect([]byte(head)))
	}
	// Output:
	// zip
	// script
	// mail
	// html
	// elf
	// text
}
