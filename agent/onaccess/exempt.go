package onaccess

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SkipExcluded is the reason why a mount in an excluded folder is not watched.
const SkipExcluded = "excluded by policy"

// Exclusions in the kernel
//
// A mount whose mount point is in an excluded folder (Config.ExcludedFolders)
// has no mark: its accesses never leave the kernel. Where a file-system mark
// has to stay, because the same file system is also mounted elsewhere, the
// mount gets an ignore mark instead. Both follow the mount, so nothing that is
// moved out of it stays exempt.
//
// Where the kernel can ignore what happens to a folder's children (6.0), a folder
// that lies in an excluded one, or is it, gets a mark at the first access to one
// of its files, whoever can write them: a file that is moved out is not its
// child any more. The folder itself could be moved out, so all folders above it
// must be writable for root only.
//
// Other excluded files get an ignore mark when they are first accessed, if the
// exclusion is one of path alone (Config.ExcludedPath) and nobody but root can
// write the file. The mark belongs to the inode: a file that others can write
// could be filled in the excluded folder and then be moved out of it, unseen;
// those are asked about at every open. While names matter (Config.NamesMatter)
// neither files nor folders get marks.

// exempt is a mount that is left out although its file system is of a kind that
// is watched: because of an exclusion or another setting.
type exempt struct {
	mount  mount
	prefix string
}

// excludedMount reports whether the mount point is in an excluded folder.
func (w *Watcher) excludedMount(m mount) bool {
	if w.cfg.ExcludedFolders == nil {
		return false
	}
	for _, folder := range w.cfg.ExcludedFolders() {
		if folder == "/" || m.point == folder || strings.HasPrefix(m.point, folder+"/") {
			return true
		}
	}
	return false
}

// ExclusionsChanged makes the marks fit the exclusions in force.
func (w *Watcher) ExclusionsChanged() { w.reapply() }

// settleExempt takes marks off exempt mounts, or has them ignored where the
// file system's mark stays, and takes ignore marks off mounts that are exempt no
// longer. covered are the devices that are watched. w.marksMu is held.
func (w *Watcher) settleExempt(list []exempt, covered map[uint64]bool) error {
	muted, bare := make(map[int]exempt), make(map[int]uint64)
	var errs []error
	for _, e := range list {
		if w.scope() == ScopeFilesystem && covered[e.mount.dev] {
			if _, done := w.marks.muted[e.mount.id]; !done {
				w.muteMount(e.mount, e.prefix)
			}
			muted[e.mount.id] = e
			continue
		}
		// Nothing has to be asked of a mount that had no mark a moment ago: marks
		// come with mounts that are not exempt only.
		dev, done := w.marks.bare[e.mount.id]
		if !done || dev != e.mount.dev {
			kind := uint(unix.FAN_MARK_MOUNT)
			if w.scope() == ScopeFilesystem {
				kind = unix.FAN_MARK_FILESYSTEM
			}
			gone, err := w.unmark(e, kind)
			errs = append(errs, err)
			if !gone {
				continue
			}
		}
		bare[e.mount.id] = e.mount.dev
	}
	for id, e := range w.marks.muted {
		if _, still := muted[id]; !still {
			_, err := w.unmark(e, unix.FAN_MARK_MOUNT|unix.FAN_MARK_IGNORED_MASK)
			errs = append(errs, err)
		}
	}
	w.marks.muted, w.marks.bare = muted, bare
	return errors.Join(errs...)
}

// unmark removes a mark of a mount, if there is one. It reports whether there
// is none now.
func (w *Watcher) unmark(e exempt, kind uint) (gone bool, err error) {
	fd, err := openMount(e.prefix+e.mount.point, e.mount.id)
	if err != nil {
		return false, nil // unmounted: its marks went with it
	}
	defer unix.Close(fd)
	mask := w.caps.eventMask(true) | w.caps.eventMask(false)
	err = w.groupOf(e.mount.fsType).markPathFD(unix.FAN_MARK_REMOVE|kind, mask, fd)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return err == nil, err
}

// ignoreExcluded gives an excluded file an ignore mark, where that is sound. The
// file, and by another mount its folder, may have a name that is not excluded.
func (w *Watcher) ignoreExcluded(p *pending, a Access, under stamp) {
	if w.namesMatter() || w.ignoreFolder(p, a, under) {
		return
	}
	if w.cfg.ExcludedPath == nil || w.cfg.Ignore == IgnoreOff || p.state.uid != 0 || p.state.mode&0o022 != 0 ||
		!w.classes.of(p.state.dev, int(p.fd)).ignorable() || !w.cfg.ExcludedPath(a) {
		return
	}
	if w.ignores.add(p.group, int(p.fd)) && w.stamp() != under {
		// The exclusion may have ended between the question and the mark.
		w.ignores.remove(p.group, int(p.fd))
	}
}

// ignoreFolder gives the folder of an excluded file an ignore mark, where that
// is sound, and reports whether it did.
func (w *Watcher) ignoreFolder(p *pending, a Access, under stamp) bool {
	if !w.caps.FolderIgnore || w.cfg.Ignore == IgnoreOff || a.Deleted || w.cfg.ExcludedFolders == nil ||
		!w.classes.of(p.state.dev, int(p.fd)).ignorable() {
		return false
	}
	dir, name := filepath.Split(a.Path)
	dir = filepath.Clean(dir)
	inside := func(folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }
	if !slices.ContainsFunc(w.cfg.ExcludedFolders(), inside) {
		return false
	}
	fd, err := openBelowRoot(dir)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The path may be one of another mount namespace.
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Dev != p.state.dev || st.Ino != p.state.ino {
		return false
	}
	if !w.ignores.addFolder(p.group, fd) {
		return false
	}
	if w.stamp() != under {
		w.ignores.removeFolder(p.group, fd)
	}
	return true
}

// maxFolders bounds the depth of a folder that is ignored.
const maxFolders = 64

// errMovable means that others than root could move a folder.
var errMovable = errors.New("a folder above it can be written by others than root")

// openBelowRoot opens a folder (O_PATH) if nobody but root can move it or
// anything above it.
func openBelowRoot(dir string) (fd int, err error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err = unix.Open("/", flags, 0)
	names := strings.Split(strings.TrimPrefix(dir, "/"), "/")
	if len(names) > maxFolders {
		err = errors.Join(err, errMovable)
	}
	for _, name := range names {
		if err != nil || name == "" {
			break
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && (st.Uid != 0 || st.Mode&0o022 != 0) {
			err = errMovable
		}
		if err != nil {
			break
		}
		var next int
		next, err = unix.Openat(fd, name, flags, 0)
		if err == nil {
			unix.Close(fd)
			fd = next
		}
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	return fd, nil
}
