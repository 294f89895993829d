package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// decoder is a program of the user that turns lines of hexadecimal digits into
// lines of text.
type decoder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startDecoder(command string, errs io.Writer) (*decoder, error) {
	cmd := exec.Command("sh", "-c", command)
	cmd.Stderr = errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &decoder{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

// decode returns the program's answer to one payload.
func (d *decoder) decode(data []byte) (string, error) {
	line := append(hex.AppendEncode(nil, data), '\n')
	written := make(chan error, 1) // the program may answer before it has read all
	go func() {
		_, err := d.in.Write(line)
		written <- err
	}()
	answer, err := d.out.ReadString('\n')
	if errors.Is(err, io.EOF) {
		return "", errors.New("the program ended without an answer")
	}
	if err != nil {
		return "", err
	}
	if err := <-written; err != nil {
		return "", err
	}
	return strings.TrimRight(answer, "\r\n"), nil
}

// close ends the program.
func (d *decoder) close() error {
	_ = d.in.Close() // it may have ended by itself
	_, _ = io.Copy(io.Discard, d.out)
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("--decode: %w", err)
	}
	return nil
}
