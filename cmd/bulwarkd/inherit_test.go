package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInheritedDescriptorsStayHere(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const left = 97
	if err := unix.Dup2(int(f.Fd()), left); err != nil { // without close-on-exec, as a shell leaves it
		t.Fatal(err)
	}
	defer unix.Close(left)
	child := func() string {
		out, err := exec.Command("ls", "/proc/self/fd").Output()
		if err != nil {
			t.Fatal(err)
		}
		return " " + strings.Join(strings.Fields(string(out)), " ") + " "
	}
	if got := child(); !strings.Contains(got, " 97 ") {
		t.Fatalf("the test itself: a child has %s", got)
	}
	if err := keepInherited(); err != nil {
		t.Fatal(err)
	}
	if got := child(); strings.Contains(got, " 97 ") {
		t.Errorf("a child has %s", got)
	}
}
