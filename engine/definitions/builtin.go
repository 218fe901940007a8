package definitions

import "bytes"

// BuiltInRules is how many rules Test knows.
const BuiltInRules = 2

// BuiltInMax is the size of the largest file that a built-in rule can match.
const BuiltInMax = 128

// BuiltIn is a rule of the engine itself.
type BuiltIn struct {
	Threat string
	ID     string
	PUA    bool
}

// The texts of the test files stand here rotated by one, so that neither the
// source nor the programs made of it are taken for a test file.
const (
	eicarRotated = "Y6P\"Q&ABQ\\5]Q[Y65)Q_*8DD*8~%FJDBS.TUBOEBSE.BOUJWJSVT.UFTU.GJMF\"%I,I+"
	puaRotated   = "CVMXBSL.QVB.UFTU.GJMF\"%QPUFOUJBMMZ.VOXBOUFE.BQQMJDBUJPO.UFTU%"
)

func unrotate(s string) []byte {
	b := []byte(s)
	for i := range b {
		b[i]--
	}
	return b
}

// EICAR is the 68 bytes of the EICAR test file.
func EICAR() []byte { return unrotate(eicarRotated) }

// PUATest is the text of our own test file for potentially unwanted
// applications, in the manner of AMTSO's.
func PUATest() []byte { return unrotate(puaRotated) }

// Test returns the built-in rule that a whole file satisfies, if any. As the
// EICAR specification has it, the test string stands at the beginning, and only
// blanks, tabs, line ends and Ctrl-Z may follow, up to 128 bytes in all.
func Test(data []byte) (BuiltIn, bool) {
	if len(data) > BuiltInMax {
		return BuiltIn{}, false
	}
	for _, t := range []struct {
		text []byte
		rule BuiltIn
	}{
		{EICAR(), BuiltIn{Threat: "Virus:DOS/EICAR_Test_File", ID: "EICAR-Test-File"}},
		{PUATest(), BuiltIn{Threat: "PUA:Any/Bulwark_Test_File", ID: "Bulwark-PUA-Test-File", PUA: true}},
	} {
		rest, ok := bytes.CutPrefix(data, t.text)
		if ok && len(bytes.Trim(rest, " \t\r\n\x1a")) == 0 {
			return t.rule, true
		}
	}
	return BuiltIn{}, false
}
