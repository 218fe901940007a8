package detect

// Response is what the agent does when a rule matches, besides the alert.
type Response string

// The responses, under the key "response" of a rule.
const (
	// KillTree ends the process that the rule matched and its descendants.
	KillTree Response = "kill_tree"
	// QuarantineImage takes its executable away.
	QuarantineImage Response = "quarantine_image"
	// BlockHash makes the executable's hash a blocked indicator of this host.
	BlockHash Response = "block_hash"
	// Isolate cuts the host off from everything but the portal.
	Isolate Response = "isolate"
)

// parseResponses reads the list of responses; "alert" is what always happens.
func (r *Rule) parseResponses(n *node) error {
	if n == nil || n.kind == nullNode {
		return nil
	}
	items := []node{*n}
	if n.kind == listNode {
		items = n.items
	}
	for i := range items {
		switch v := Response(textOf(&items[i])); v {
		case "alert":
		case KillTree, QuarantineImage, BlockHash, Isolate:
			r.Responses = append(r.Responses, v)
		default:
			return atLine(items[i].line, "response: %.64q is not one of alert, %s, %s, %s, %s", string(v), KillTree, QuarantineImage, BlockHash, Isolate)
		}
	}
	return nil
}
