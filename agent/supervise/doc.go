// Package supervise keeps one program running on hosts without systemd: it
// starts it, starts it again when it ends, kills it when it hangs and stops it
// on request. It plays systemd's side of sd_notify(3) (Type=notify,
// WatchdogSec, Restart=always, StartLimit), so that a daemon needs one code
// path for both.
//
// The watchdog is more than comfort. A daemon that answers the kernel's
// permission requests and then hangs holds every process that opens a file. Its
// death is the cure: the kernel closes its fanotify group and lets everybody
// go. The supervisor may then be one of the processes that are held, if it
// opens a file itself; so everything it needs while the program runs (log,
// socket, /dev/null) is opened before the program starts, and from then on it
// opens nothing.
package supervise
