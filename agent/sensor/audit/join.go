package audit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/event"
)

// join makes the kernel send us what is wanted.
func (r *run) join(ctx context.Context) error {
	st, err := r.ctl.status()
	if err != nil {
		return err
	}
	r.before, r.lost = st, st.Lost
	unavailable := map[event.Category]error{}
	for _, c := range r.only {
		if slices.Contains(callCategories, c) {
			r.calls = append(r.calls, c)
		}
	}
	if st.PID == 0 && (st.Enabled == 0 || r.s.opts.Own) {
		if err := r.mayOwn(st); err != nil {
			return err
		}
		if r.rd, err = r.takeOver(st); err != nil {
			return err
		}
	} else if r.rd, err = r.listen(ctx); err != nil {
		return err
	}
	if len(r.calls) > 0 {
		r.calls = r.addRules(st, unavailable)
	}
	r.s.mu.Lock()
	r.s.unavailable = unavailable
	r.s.mu.Unlock()
	if len(unavailable) == len(r.only) && len(r.only) > 0 {
		for _, err := range unavailable {
			return err
		}
	}
	r.keepRules()
	return nil
}

// keepRules writes our rules where auditd loads them at its next start.
func (r *run) keepRules() {
	if r.s.opts.RulesFile != "" && len(r.calls) > 0 && !r.own {
		if err := writeRules(r.s.opts.RulesFile, r.calls); err != nil {
			r.s.log.Warn("audit rules will be missing from the next start of auditd until the agent starts", "err", err)
		}
	}
}

// mayOwn says why audit, which is off or has no listener, is left so.
func (r *run) mayOwn(st Status) error {
	if st.Enabled == immutable {
		return errors.New("audit: its state cannot be changed before the next start of the host (auditctl -e 2)")
	}
	if r.s.opts.Own {
		return nil
	}
	if len(r.calls) == 0 {
		return errors.New("audit: it is off on this host")
	}
	for _, p := range []string{"/sbin/auditd", "/usr/sbin/auditd"} {
		if _, err := os.Stat(p); err == nil {
			return errors.New("audit: it is off, and auditd is installed and does not run; start auditd, whose place we do not take")
		}
	}
	return nil
}

// takeOver switches audit on and makes us the ones that the kernel sends to.
func (r *run) takeOver(st Status) (source, error) {
	rd, err := openReader(false)
	if err != nil {
		return nil, err
	}
	r.former = formerOf(st)
	if err := r.former.store(r.s.opts.StateFile); err != nil {
		r.s.log.Warn("if the agent is killed its settings of the kernel's audit will stay", "err", err)
	}
	r.own = true
	// First the backlog: from the moment that audit is on, nobody may wait.
	if err := r.ctl.set(statusBacklogWaitTime, Status{}); err != nil && !errors.Is(err, unix.EINVAL) {
		rd.close()
		return nil, err
	}
	if st.BacklogLimit < ownBacklog {
		if err := r.ctl.set(statusBacklogLimit, Status{BacklogLimit: ownBacklog}); err != nil {
			rd.close()
			return nil, err
		}
	}
	if err := rd.own(uint32(os.Getpid())); err != nil {
		rd.close()
		return nil, fmt.Errorf("audit: %w", err)
	}
	if now, err := r.ctl.status(); err != nil || now.PID != uint32(os.Getpid()) {
		rd.close()
		return nil, fmt.Errorf("audit: somebody else listens (pid %d): %w", now.PID, errors.Join(err, unix.EEXIST))
	}
	if st.Enabled == 0 {
		if err := r.ctl.set(statusEnabled, Status{Enabled: 1}); err != nil {
			rd.close()
			return nil, err
		}
	}
	return &datagrams{rd: rd, buf: make([]byte, maxRecord+unix.NLMSG_HDRLEN)}, nil
}

// listen reads beside whoever owns audit.
func (r *run) listen(ctx context.Context) (source, error) {
	rd, err := openReader(true)
	if err == nil {
		return &datagrams{rd: rd, buf: make([]byte, maxRecord+unix.NLMSG_HDRLEN)}, nil
	}
	var d net.Dialer
	conn, e := d.DialContext(ctx, "unix", r.s.opts.Socket)
	if e != nil {
		return nil, fmt.Errorf("%w; and auditd's plugin af_unix is not active: %w", err, e)
	}
	return newLines(conn), nil
}

// addRules installs the rules and returns the categories that have theirs.
func (r *run) addRules(st Status, unavailable map[event.Category]error) []event.Category {
	refuse := func(err error) []event.Category {
		for _, c := range r.calls {
			unavailable[c] = err
		}
		return nil
	}
	rules, err := r.ctl.rules()
	if err != nil {
		return refuse(err)
	}
	if slices.ContainsFunc(rules, never) {
		return refuse(errors.New("audit: the rule `-a task,never` of this host switches off the auditing of system calls; remove it from /etc/audit/rules.d"))
	}
	if st.Enabled == immutable {
		if slices.ContainsFunc(rules, ours) {
			return r.calls // of the file, loaded before the state was fixed
		}
		return refuse(errors.New("audit: its rules cannot be changed before the next start of the host (auditctl -e 2)"))
	}
	if err := remove(r.ctl); err != nil {
		return refuse(err)
	}
	var done []event.Category
	for _, c := range r.calls {
		if err := install(r.ctl, c, os.Getpid()); err != nil {
			unavailable[c] = err
			continue
		}
		done = append(done, c)
	}
	return done
}

// leave puts back what join changed.
func (r *run) leave() error {
	var errs []error
	if r.before.Enabled != immutable && !r.s.opts.Logons {
		if err := remove(r.ctl); err != nil {
			errs = append(errs, err)
		}
	}
	if r.s.opts.RulesFile != "" && !r.s.opts.Logons {
		if err := os.Remove(r.s.opts.RulesFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if r.own {
		errs = append(errs, r.giveUp())
	}
	if r.rd != nil {
		r.rd.close()
	}
	return errors.Join(errs...)
}

// giveUp is no longer the one that the kernel sends to.
func (r *run) giveUp() error {
	r.own = false
	if err := r.former.putBack(r.ctl); err != nil {
		return err // the file stays: the next start tries again
	}
	return remainsOf(r.s.opts.StateFile)
}
