package detect

import (
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Streams: the categories of Sigma that events belong to, and the services
// (logs) that rules for them would read. An event may be in several.
const (
	categoryProcess = "process_creation"
	categoryEnded   = "process_termination"
	categoryAccess  = "process_access"
	categoryTamper  = "process_tampering"
	categoryFile    = "file_event"
	categoryChange  = "file_change"
	categoryDelete  = "file_delete"
	categoryRename  = "file_rename"
	categoryRead    = "file_access"
	categoryNetwork = "network_connection"
	categoryDNS     = "dns_query"
	categoryImage   = "image_load"
	categoryDriver  = "driver_load"
	categoryRawRead = "raw_access_read"
	categoryThreat  = "antivirus"
	categoryLogon   = "logon"   // not Sigma's: all logon events
	categoryAccount = "account" // not Sigma's: accounts and groups
	categoryService = "service" // not Sigma's: services and scheduled tasks
	categoryDevice  = "device"  // not Sigma's: every event of DeviceEvents
	categoryMount   = "mount"
	categoryScript  = "script" // what interpreters run
	// categoryBehavior: what rules of the level informational found.
	categoryBehavior = "behavior"

	categoryPrivilege = "privilege_change"

	serviceAudit   = "auditd"
	serviceAuth    = "auth"
	serviceSSH     = "sshd"
	serviceSudo    = "sudo"
	serviceCron    = "cron"
	serviceSyslog  = "syslog"
	serviceSystemd = "systemd"
	serviceSystem  = "system" // /var/log/messages of older rules
	serviceClamAV  = "clamav"
)

// maxStreams is how many streams one event is in at most.
const maxStreams = 8

// streams is a short list without allocation.
type streams struct {
	name [maxStreams]string
	n    int
}

func (s *streams) add(names ...string) {
	for _, name := range names {
		if s.n < maxStreams {
			s.name[s.n] = name
			s.n++
		}
	}
}

func service(name string) string { return "service:" + name }

// Keys of streams of services, so that no event makes new text.
var (
	streamAudit   = service(serviceAudit)
	streamAuth    = service(serviceAuth)
	streamSSH     = service(serviceSSH)
	streamSudo    = service(serviceSudo)
	streamCron    = service(serviceCron)
	streamSyslog  = service(serviceSyslog)
	streamSystemd = service(serviceSystemd)
	streamSystem  = service(serviceSystem)
	streamClamAV  = service(serviceClamAV)
)

// streamsOf gives the streams of an event.
func streamsOf(ev *event.Event) streams {
	var s streams
	switch ev.Class {
	case event.ClassProcess:
		s.process(ev)
	case event.ClassFile:
		s.file(ev)
	case event.ClassNetwork:
		if ev.Action == event.ListeningConnection {
			s.add(categoryNetwork, streamAudit)
			break
		}
		if ev.Category() == event.CategoryDNS {
			s.add(categoryDNS)
			break
		}
		s.add(categoryNetwork, streamAudit)
	case event.ClassLogon:
		s.add(categoryLogon, streamAudit, streamAuth, streamSyslog, streamSystem)
		switch programOf(ev) {
		case "sshd", "sshd-session":
			s.add(streamSSH)
		case "sudo":
			s.add(streamSudo)
		}
	case event.ClassImageLoad:
		s.add(categoryImage, streamAudit)
	case event.ClassBehavior:
		s.add(categoryBehavior)
	case event.ClassDevice, event.ClassUnknown:
		s.device(ev)
	}
	return s
}

func (s *streams) process(ev *event.Event) {
	switch ev.Action {
	case event.ProcessCreated:
		s.add(categoryProcess, streamAudit)
		switch programOf(ev) {
		case "sudo":
			s.add(streamSudo, streamAuth, streamSyslog)
		case "su", "passwd", "useradd", "usermod", "userdel", "groupadd", "chage", "gpasswd":
			s.add(streamAuth)
		}
		switch ev.Initiating.FileName {
		case "cron", "crond", "atd", "anacron":
			s.add(streamCron)
		}
	case event.ProcessTerminated:
		s.add(categoryEnded)
	default:
		s.add(categoryDevice, streamAudit)
	}
}

func (s *streams) file(ev *event.Event) {
	switch ev.Action {
	case event.FileCreated:
		s.add(categoryFile)
	case event.FileModified:
		s.add(categoryFile, categoryChange)
	case event.FileDeleted:
		s.add(categoryDelete)
	case event.FileRenamed:
		s.add(categoryFile, categoryRename)
	case "FileOpened", "FileRead", "SensitiveFileRead":
		s.add(categoryRead)
	default: // permissions, ownership, attributes
		s.add(categoryChange)
	}
	s.add(streamAudit)
}

func (s *streams) device(ev *event.Event) {
	s.add(categoryDevice, streamAudit)
	switch ev.Category() {
	case event.CategoryModule, event.CategoryBPF:
		s.add(categoryDriver)
	case event.CategoryProcessAccess:
		s.add(categoryAccess)
	case event.CategoryTampering, event.CategoryMemoryFile:
		s.add(categoryTamper)
	case event.CategoryDeviceRead:
		s.add(categoryRawRead)
	case event.CategoryMount:
		s.add(categoryMount)
	case event.CategoryPrivilege:
		s.add(categoryPrivilege)
	case event.CategoryScript:
		s.add(categoryScript)
	case event.CategoryAccount:
		s.add(categoryAccount, streamAuth, streamSyslog)
	case event.CategoryTask:
		s.add(categoryService, streamCron, streamSyslog)
	case event.CategoryService:
		s.add(categoryService, streamSystemd, streamSyslog, streamSystem)
	case event.CategoryAgent:
		if strings.HasPrefix(ev.Action, "Antivirus") {
			s.add(categoryThreat, streamClamAV)
		}
	}
}

// programOf is the name of the program that an event is about.
func programOf(ev *event.Event) string {
	if p := subject(ev); p.FileName != "" {
		return p.FileName
	}
	return ev.Logon.Protocol
}

var knownCategories = map[string]bool{
	categoryProcess: true, categoryEnded: true, categoryAccess: true, categoryTamper: true, categoryFile: true, categoryChange: true,
	categoryDelete: true, categoryRename: true, categoryRead: true, categoryNetwork: true, categoryDNS: true, categoryImage: true,
	categoryDriver: true, categoryRawRead: true, categoryThreat: true, categoryLogon: true, categoryAccount: true, categoryService: true,
	categoryDevice: true, categoryBehavior: true, categoryMount: true, categoryScript: true, categoryPrivilege: true,
}

var knownServices = map[string]bool{
	serviceAudit: true, serviceAuth: true, serviceSSH: true, serviceSudo: true, serviceCron: true, serviceSyslog: true,
	serviceSystemd: true, serviceSystem: true, serviceClamAV: true,
}

// serviceAliases are other names under which rules know a service.
var serviceAliases = map[string]string{
	"secure": serviceAuth, "authpriv": serviceAuth, "audit": serviceAudit, "ssh": serviceSSH, "crond": serviceCron,
	"messages": serviceSystem, "cron.log": serviceCron, "su": serviceAuth, "journald": serviceSyslog,
}

// stream is the key of the stream that the rule sees; why says that no sensor
// delivers it.
func (r *Rule) stream() (key, why string) {
	if r.Service != "" && r.Category == "" {
		name := strings.ToLower(r.Service)
		if a := serviceAliases[name]; a != "" {
			name = a
		}
		if !knownServices[name] {
			return "", "no sensor delivers events of service " + r.Service
		}
		return service(name), ""
	}
	if r.Category == "" {
		// Only a product: keywords in any log of the system.
		return streamSyslog, ""
	}
	if !knownCategories[r.Category] {
		return "", fmt.Sprintf("no sensor delivers events of category %q", r.Category)
	}
	return r.Category, ""
}
