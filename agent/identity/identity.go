// Package identity keeps who this installation is: a random machine GUID made
// at the first start, a key pair that never leaves the host, and the client
// certificate that the portal issued for it.
//
// Identity belongs to hardware: when the files are found on other hardware (a
// cloned disk, a golden image), they are put aside and a new identity is made,
// which enrolls anew.
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/event"
)

const (
	fileName = "identity.json"
	maxFile  = 64 << 10
)

// Enrollment is what the portal gave this installation.
type Enrollment struct {
	DeviceID string    `json:"device_id"`
	OrgID    string    `json:"org_id"`
	Portal   string    `json:"portal"`
	Renew    time.Time `json:"renew_after"`
	// Authority is the SHA-256 of the portal's authority, in hex: another one
	// is another portal, for which this enrollment is of no use.
	Authority string `json:"authority"`
	// Certificate is the client certificate, PEM.
	Certificate string `json:"certificate"`
}

// stored is the content of the file. Everything is in one file so that it is
// replaced as a whole.
type stored struct {
	MachineGUID string      `json:"machine_guid"`
	HardwareID  string      `json:"hardware_id"`
	Key         string      `json:"key"`
	Enrollment  *Enrollment `json:"enrollment,omitempty"`
}

// Identity is the identity of this installation. It is safe for concurrent
// use.
type Identity struct {
	dir      string
	hardware string
	// Replaced says why an earlier identity was put aside at Load; empty when
	// none was.
	Replaced string

	mu   sync.Mutex
	data stored
	key  *ecdsa.PrivateKey
	cert *tls.Certificate
}

// Load reads the identity in dir or makes a new one. hardwareID is that of
// this host (see HardwareID). A damaged file, or one of other hardware, is
// renamed and replaced; Replaced then says so.
func Load(dir, hardwareID string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id := &Identity{dir: dir, hardware: hardwareID}
	path := id.path()
	err := id.read()
	switch {
	case err == nil && id.data.HardwareID == hardwareID:
		return id, nil
	case err == nil:
		id.Replaced = fmt.Sprintf("the identity in %s belongs to other hardware (a cloned disk, or a new mainboard or machine-id): this host enrolls anew; the old one is kept as %s.old", path, fileName)
	case errors.Is(err, fs.ErrNotExist):
		return id, id.fresh()
	case errors.Is(err, errDamaged):
		id.Replaced = fmt.Sprintf("%v: this host enrolls anew; the old file is kept as %s.old", err, fileName)
	default:
		return nil, err
	}
	if err := os.Rename(path, path+".old"); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return id, id.fresh()
}

var errDamaged = errors.New("the file is damaged")

func (id *Identity) path() string { return filepath.Join(id.dir, fileName) }

func (id *Identity) read() error {
	path := id.path()
	b, err := atomicfile.Read(path, maxFile)
	if errors.Is(err, atomicfile.ErrTooLarge) {
		return fmt.Errorf("identity: %w: %w", errDamaged, err)
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	data, key, cert, err := parse(b)
	if err != nil {
		return fmt.Errorf("identity: %s: %w: %w", path, errDamaged, err)
	}
	id.data, id.key, id.cert = data, key, cert
	return nil
}

// parse reads the content of the file.
func parse(b []byte) (stored, *ecdsa.PrivateKey, *tls.Certificate, error) {
	var d stored
	if len(b) > maxFile {
		return d, nil, nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, nil, nil, err
	}
	if _, err := uuid.Parse(d.MachineGUID); err != nil {
		return d, nil, nil, fmt.Errorf("machine_guid: %w", err)
	}
	block, _ := pem.Decode([]byte(d.Key))
	if block == nil || block.Type != "PRIVATE KEY" {
		return d, nil, nil, errors.New("key: not a PEM private key")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return d, nil, nil, fmt.Errorf("key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return d, nil, nil, fmt.Errorf("key: is a %T, want ECDSA", k)
	}
	if d.Enrollment == nil {
		return d, key, nil, nil
	}
	cert, err := d.Enrollment.pair(key)
	if err != nil {
		return d, nil, nil, fmt.Errorf("enrollment: %w", err)
	}
	return d, key, cert, nil
}

// pair joins the certificate and the key.
func (e *Enrollment) pair(key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	block, _ := pem.Decode([]byte(e.Certificate))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("certificate: not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if !key.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("certificate: not of this key")
	}
	if !event.IsHex(e.DeviceID, 40) || c.Subject.CommonName != e.DeviceID {
		return nil, fmt.Errorf("certificate: is for %.64q, the device id is %.64q", c.Subject.CommonName, e.DeviceID)
	}
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}, nil
}

// fresh makes a new identity.
func (id *Identity) fresh() error {
	guid, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	id.data = stored{MachineGUID: guid.String(), HardwareID: id.hardware, Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}
	id.key, id.cert = key, nil
	return id.save(id.data)
}

// save replaces the file.
func (id *Identity) save(d stored) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := atomicfile.Write(id.path(), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// MachineGUID is the random id of this installation.
func (id *Identity) MachineGUID() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.data.MachineGUID
}

// HardwareID is that of this host.
func (id *Identity) HardwareID() string { return id.hardware }

// Request returns a certificate request for the key, PKCS #10 in DER.
func (id *Identity) Request() ([]byte, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, id.key)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate request: %w", err)
	}
	return der, nil
}

// Certificate returns the client certificate, nil when there is none.
func (id *Identity) Certificate() *tls.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cert
}

// Enrollment returns what the portal gave; ok is false when not enrolled.
func (id *Identity) Enrollment() (e Enrollment, ok bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.data.Enrollment == nil {
		return Enrollment{}, false
	}
	return *id.data.Enrollment, true
}

// SetEnrollment stores what the portal gave. certificate is in DER.
func (id *Identity) SetEnrollment(e Enrollment, certificate []byte) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	e.Certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	cert, err := e.pair(id.key)
	if err != nil {
		return fmt.Errorf("identity: the portal's answer: %w", err)
	}
	d := id.data
	d.Enrollment = &e
	if err := id.save(d); err != nil {
		return err
	}
	id.data, id.cert = d, cert
	return nil
}

// Forget gives up the enrollment and the key, for a new enrollment under a new
// id. The machine GUID stays.
func (id *Identity) Forget() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	guid := id.data.MachineGUID
	if err := id.fresh(); err != nil {
		return err
	}
	id.data.MachineGUID = guid
	return id.save(id.data)
}

// AuthorityID returns the value of Enrollment.Authority for a certificate.
func AuthorityID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
