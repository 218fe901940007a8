package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// The test binary is the program, too: started under one of its names it is
// that program; with serveEnv set it is a child that runs one command after the
// other. Starting a process for each command takes a tenth of a second under
// the race detector and proves nothing new; a child still has a user, a folder
// and an environment of its own.

const serveEnv = "BULWARK_TEST_SERVE"

func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	switch {
	case os.Getenv(serveEnv) != "":
		if err := serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case name == "bulwark" || name == referenceName:
		os.Exit(run(context.Background(), name, underRoot(os.Args[1:]), os.Stdout, os.Stderr))
	default:
		os.Exit(m.Run())
	}
}

// underRoot points the program to the daemon of the test.
func underRoot(args []string) []string {
	if root := os.Getenv("BULWARK_TEST_ROOT"); root != "" {
		return append([]string{"--root", root}, args...)
	}
	return args
}

// childRequest is a command for a child, childReply what came of it. Arguments
// and output are bytes: not all of them are UTF-8.
type childRequest struct {
	Dir  string
	Name string
	Args [][]byte
}

type childReply struct {
	Status         int
	Stdout, Stderr []byte
}

// serve runs commands until in ends.
func serve(in io.Reader, out io.Writer) error {
	requests, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r childRequest
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if err := os.Chdir(r.Dir); err != nil {
			return err
		}
		var args []string
		for _, a := range r.Args {
			args = append(args, string(a))
		}
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), r.Name, underRoot(args), &stdout, &stderr)
		if err := replies.Encode(childReply{status, stdout.Bytes(), stderr.Bytes()}); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// child is a process that runs commands one after the other.
type child struct {
	mu      sync.Mutex
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stderr  bytes.Buffer
	replies *json.Decoder
}

// startChild starts program, a copy of the test binary, with env. prepare may
// change the process before it starts.
func startChild(program string, env []string, prepare func(*exec.Cmd)) (*child, error) {
	c := &child{cmd: exec.Command(program)}
	c.cmd.Env = append(env, serveEnv+"=1")
	c.cmd.Stderr = &c.stderr
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.replies = json.NewDecoder(stdout)
	if prepare != nil {
		prepare(c.cmd)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the child: %w", err)
	}
	return c, nil
}

// run runs a command in dir under the given name of the program.
func (c *child) run(dir, name string, args ...string) (childReply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := childRequest{Dir: dir, Name: name}
	for _, a := range args {
		r.Args = append(r.Args, []byte(a))
	}
	var reply childReply
	err := json.NewEncoder(c.stdin).Encode(r)
	if err == nil {
		err = c.replies.Decode(&reply)
	}
	if err != nil {
		return reply, fmt.Errorf("%s %q: the child is gone: %w", name, args, errors.Join(err, c.stop()))
	}
	return reply, nil
}

// stop ends the child; what it said by itself, a data race for instance, is an
// error.
func (c *child) stop() error {
	c.stdin.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("the child: %w: %s", err, c.stderr.String())
	}
	if c.stderr.Len() > 0 {
		return fmt.Errorf("the child says %s", c.stderr.String())
	}
	return nil
}
