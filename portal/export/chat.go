package export

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/bulwarkhq/bulwark/event"
)

// maxChat bounds a text of a chat message in bytes; Slack takes 3,000 characters
// in a section, 150 in a header and 2,000 in a field.
const (
	maxChatHead  = 140
	maxChatText  = 1200
	maxChatField = 300
)

// shown is foreign text that a person will read: what is invisible, moves the
// cursor or changes the direction becomes a space or a mark.
func shown(s string, limit int) string {
	return cut(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return ' '
		case unicode.Is(unicode.Cf, r):
			return '\uFFFD'
		}
		return r
	}, s), limit)
}

type fact struct{ name, value string }

// chat is what a person reads of a record.
func (r *Record) chat(p portal) (head string, facts []fact, text, link string) {
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, fact{name, shown(value, maxChatField)})
		}
	}
	switch r.Type {
	case typeAlert:
		a := &r.Alert.Detection
		head, link = string(a.Severity)+": "+a.Title, p.url+"/alerts/"+a.ID
		add("Device", r.Alert.DeviceName)
		add("Category", a.Category)
		add("Threat", a.ThreatName)
		add("Action", a.Action)
		add("File", a.File.FolderPath)
		add("Process", a.Process.FolderPath)
		add("Account", a.Process.AccountName)
		add("ATT&CK", strings.Join(a.Techniques[:min(len(a.Techniques), maxTechniques)], ", "))
		text = a.Description
	case typeAudit:
		head, link = r.title(p), p.url+"/audit"
		add("From", r.Audit.Address)
		add("Target", r.Audit.Target)
		text = r.Audit.Detail
	default:
		head, link, text = r.title(p), p.url+"/exports", "Sent by "+r.By+". Messages of Bulwark arrive here."
	}
	add("Time", wellFormed(r.Time).Format("2006-01-02 15:04:05 UTC"))
	return shown(head, maxChatHead), facts, shown(text, maxChatText), link
}

var slackEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackText escapes text for a place where Slack would otherwise see links and
// mentions (<!channel>).
func slackText(s string) string {
	return slackEscaper.Replace(s)
}

type object map[string]any

// slack is a message with blocks. Foreign text is plain_text, which has no markup
// and no mentions; "text" is for notifications.
func (r *Record) slack(p portal) ([]byte, error) {
	head, facts, text, link := r.chat(p)
	plain := func(s string) object { return object{"type": "plain_text", "text": s, "emoji": false} }
	blocks := []object{{"type": "header", "text": plain(head)}}
	if text != "" {
		blocks = append(blocks, object{"type": "section", "text": plain(text)})
	}
	var fields []object
	for _, f := range facts[:min(len(facts), 10)] { // Slack takes ten
		fields = append(fields, plain(f.name+": "+f.value))
	}
	blocks = append(blocks, object{"type": "section", "fields": fields})
	blocks = append(blocks, object{"type": "actions", "elements": []object{{"type": "button", "text": plain("Open in Bulwark"), "url": link}}})
	return encodeChat(r, object{"text": slackText(head), "blocks": blocks})
}

// teams is an adaptive card. Foreign text is in text runs, which know no
// Markdown, so that it cannot make links.
func (r *Record) teams(p portal) ([]byte, error) {
	head, facts, text, link := r.chat(p)
	color := map[event.Severity]string{event.SeverityHigh: "Attention", event.SeverityMedium: "Warning"}[r.severity()]
	if color == "" {
		color = "Default"
	}
	run := func(s string, more object) object {
		o := object{"type": "TextRun", "text": s}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	rich := func(runs ...object) object { return object{"type": "RichTextBlock", "inlines": runs} }
	body := []object{rich(run(head, object{"size": "Large", "weight": "Bolder", "color": color}))}
	if text != "" {
		body = append(body, rich(run(text, nil)))
	}
	for _, f := range facts {
		body = append(body, rich(run(f.name+": ", object{"weight": "Bolder"}), run(f.value, nil)))
	}
	return encodeChat(r, object{"type": "message", "attachments": []object{{
		"contentType": "application/vnd.microsoft.card.adaptive",
		"content": object{
			"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": body,
			"actions": []object{{"type": "Action.OpenUrl", "title": "Open in Bulwark", "url": link}},
		},
	}}})
}

func encodeChat(r *Record, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.ID(), err)
	}
	return b, nil
}
