package process

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Bounds of what is read about containers.
const (
	maxContainerFile = 1 << 20
	maxContainers    = 1024
	containerRecheck = 10 * time.Second // of one that nobody knew
)

// Container is what a container's runtime says about it.
type Container struct {
	Name, Image string
	Pod         string // namespace/name
}

// Containers looks up containers by their id in the files that the runtimes
// keep: Docker, Podman, CRI-O, and containerd's bundles. It asks no daemon.
type Containers struct {
	root string

	mu    sync.Mutex
	known map[string]knownContainer
}

type knownContainer struct {
	Container
	found bool
	at    time.Time
}

// NewContainers reads below root, usually "/".
func NewContainers(root string) *Containers {
	return &Containers{root: root, known: make(map[string]knownContainer)}
}

// Lookup tells about the container with this id (64 hex digits).
func (c *Containers) Lookup(id string) (Container, bool) {
	if c == nil || len(id) != 64 || !isHex(id) {
		return Container{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.known[id]; ok && (k.found || time.Since(k.at) < containerRecheck) {
		return k.Container, k.found
	}
	k := knownContainer{at: time.Now()}
	for _, read := range []func(string) (Container, error){c.docker, c.ociBundle} {
		if found, err := read(id); err == nil {
			k.Container, k.found = found, true
			break
		}
	}
	if len(c.known) >= maxContainers {
		clear(c.known)
	}
	c.known[id] = k
	return k.Container, k.found
}

func (c *Containers) readJSON(to any, parts ...string) error {
	data, err := atomicfile.Read(filepath.Join(append([]string{c.root}, parts...)...), maxContainerFile)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// Labels of Kubernetes that dockershim and the runtimes set.
const (
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelContainer = "io.kubernetes.container.name"
)

func pod(namespace, name string) string {
	if name == "" {
		return ""
	}
	return clean(namespace + "/" + name)
}

func (c *Containers) docker(id string) (Container, error) {
	var v struct {
		Name   string
		Config struct {
			Image  string
			Labels map[string]string
		}
	}
	if err := c.readJSON(&v, "var/lib/docker/containers", id, "config.v2.json"); err != nil {
		return Container{}, err
	}
	return Container{
		Name: clean(strings.TrimPrefix(v.Name, "/")), Image: clean(v.Config.Image),
		Pod: pod(v.Config.Labels[labelNamespace], v.Config.Labels[labelPod]),
	}, nil
}

// ociBundle reads the annotations of a bundle's config.json (OCI runtime
// specification), and Podman's list for the name.
func (c *Containers) ociBundle(id string) (Container, error) {
	var v struct {
		Hostname    string
		Annotations map[string]string
	}
	bundles, err := filepath.Glob(filepath.Join(c.root, "run/containerd/io.containerd.runtime.v2.task/*", id, "config.json"))
	if err != nil {
		return Container{}, err
	}
	for _, storage := range []string{"run/containers/storage/overlay-containers", "var/lib/containers/storage/overlay-containers"} {
		bundles = append(bundles, filepath.Join(c.root, storage, id, "userdata/config.json"))
	}
	for _, b := range bundles {
		if name, err := filepath.Rel(c.root, b); err != nil || c.readJSON(&v, name) != nil {
			continue
		}
		a := v.Annotations
		first := func(keys ...string) string {
			for _, k := range keys {
				if a[k] != "" {
					return clean(a[k])
				}
			}
			return ""
		}
		found := Container{
			Name:  first("io.kubernetes.cri.container-name", labelContainer, "io.kubernetes.cri-o.Name", "nerdctl/name", "org.opencontainers.image.title"),
			Image: first("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.podman.annotations.image", "nerdctl/image-name"),
			Pod:   pod(first("io.kubernetes.cri.sandbox-namespace", labelNamespace), first("io.kubernetes.cri.sandbox-name", labelPod)),
		}
		if name, image := c.podman(id); found.Name == "" {
			found.Name, found.Image = name, image
		}
		return found, nil
	}
	return Container{}, errors.New("no runtime knows it")
}

func (c *Containers) podman(id string) (name, image string) {
	var list []struct {
		ID       string   `json:"id"`
		Names    []string `json:"names"`
		Metadata string   `json:"metadata"`
	}
	if c.readJSON(&list, "var/lib/containers/storage/overlay-containers/containers.json") != nil {
		return "", ""
	}
	for _, e := range list {
		if e.ID != id {
			continue
		}
		var m struct {
			Name  string `json:"name"`
			Image string `json:"image-name"`
		}
		_ = json.Unmarshal([]byte(e.Metadata), &m) // without it there is no image
		if m.Name == "" && len(e.Names) > 0 {
			m.Name = e.Names[0]
		}
		return clean(m.Name), clean(m.Image)
	}
	return "", ""
}
