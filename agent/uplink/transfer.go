package uplink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	"github.com/bulwarkhq/bulwark/agent/network"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
)

// partSize is how much of a file goes in one call, in bytes.
const partSize = 512 << 10

// maxTries bounds failures in a row of a transfer.
const maxTries = 20

// SendFile sends size bytes of r to the portal as the file of a command, and
// returns their SHA-256. A transfer that is interrupted goes on where it was.
func (u *Uplink) SendFile(ctx context.Context, command, name string, r io.ReaderAt, size int64) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return "", fmt.Errorf("send %s: %w", name, err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	buf := make([]byte, partSize)
	b := backoff{max: u.opts.MaxBackoff}
	restarts := 0
	for offset := int64(0); ; {
		n, err := r.ReadAt(buf[:min(partSize, size-offset)], offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("send %s: %w", name, err)
		}
		if int64(n) < min(partSize, size-offset) {
			return "", fmt.Errorf("send %s: the file became shorter while it was read", name)
		}
		last := offset+int64(n) == size
		req := &agentv1.SendFileRequest{CommandId: command, FileName: name, Offset: uint64(offset), Data: buf[:n], Last: last}
		if last {
			req.Sha256 = sum
		}
		res, err := callAgent(ctx, u, func(ctx context.Context, s *session) (*connect.Response[agentv1.SendFileResponse], error) {
			return s.agent.SendFile(ctx, connect.NewRequest(req))
		})
		if err != nil {
			if !passing(err) || b.n >= maxTries || b.wait(ctx, 0) != nil {
				return "", fmt.Errorf("send %s: %s", name, network.Explain(err))
			}
			continue
		}
		b.n = 0
		next := int64(res.Msg.NextOffset)
		switch {
		case last && next == size:
			return sum, nil
		case next > size:
			return "", fmt.Errorf("send %s: the portal has another file of this command", name)
		case next <= offset:
			// It lost a part, or found the whole to be another one.
			if restarts++; restarts > maxTries {
				return "", fmt.Errorf("send %s: the portal does not get it whole: does the file change?", name)
			}
		}
		offset = next
	}
}

// FetchFile writes the library's file of the hash, which the command names, and
// checks it.
func (u *Uplink) FetchFile(ctx context.Context, command, sum string, limit int64, w io.Writer) error {
	h := sha256.New()
	out := io.MultiWriter(w, h)
	b := backoff{max: u.opts.MaxBackoff}
	for offset := int64(0); ; {
		res, err := callAgent(ctx, u, func(ctx context.Context, s *session) (*connect.Response[agentv1.FetchFileResponse], error) {
			return s.agent.FetchFile(ctx, connect.NewRequest(&agentv1.FetchFileRequest{CommandId: command, Sha256: sum, Offset: uint64(offset)}))
		})
		if err != nil {
			if !passing(err) || b.n >= maxTries || b.wait(ctx, 0) != nil {
				return fmt.Errorf("fetch the file %.16s...: %s", sum, network.Explain(err))
			}
			continue
		}
		b.n = 0
		if int64(res.Msg.Size) > limit || offset+int64(len(res.Msg.Data)) > limit {
			return fmt.Errorf("the file has %d bytes, the limit is %d", res.Msg.Size, limit)
		}
		if _, err := out.Write(res.Msg.Data); err != nil {
			return fmt.Errorf("fetch the file %.16s...: %w", sum, err)
		}
		offset += int64(len(res.Msg.Data))
		if uint64(offset) >= res.Msg.Size {
			break
		}
		if len(res.Msg.Data) == 0 {
			return errors.New("the portal sent nothing")
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("the fetched file has the SHA-256 %s, not %s", got, sum)
	}
	return nil
}

// callAgent makes a call of an enrolled device.
func callAgent[T any](ctx context.Context, u *Uplink, call func(context.Context, *session) (T, error)) (T, error) {
	s, err := u.session()
	if err != nil {
		var none T
		return none, connect.NewError(connect.CodeUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	return call(ctx, s)
}

// passing reports whether an error may be over soon.
func passing(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeUnknown:
		return true
	}
	return false
}
