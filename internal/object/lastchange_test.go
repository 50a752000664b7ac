package object

import "testing"

func TestLastChange(t *testing.T) {
	for _, c := range []struct{ name, managed, want string }{
		{"none", ``, "<nil>"},
		{"not a list", `"managedFields":null,`, "<nil>"},
		{"the newest", `"managedFields":[{"manager":"helm","operation":"Apply","time":"2026-01-01T10:00:00Z"},{"manager":"kubectl-edit","operation":"Update","time":"2026-01-01T11:00:00Z","fieldsV1":{"f:spec":{"f:x":{}}}}],`,
			"kubectl-edit Update  11:00:00"},
		{"the order does not count", `"managedFields":[{"manager":"kubectl-edit","operation":"Update","time":"2026-01-01T11:00:00Z"},{"manager":"helm","operation":"Apply","time":"2026-01-01T10:00:00Z"}],`,
			"kubectl-edit Update  11:00:00"},
		{"a report of the status hides no edit", `"managedFields":[{"manager":"alice","operation":"Update","time":"2026-01-01T10:00:00Z"},{"manager":"shiplog-executor","operation":"Update","time":"2026-01-01T11:00:00Z","subresource":"status"}],`,
			"alice Update  10:00:00"},
		{"scaling is an edit", `"managedFields":[{"manager":"alice","operation":"Update","time":"2026-01-01T10:00:00Z"},{"manager":"kube-controller-manager","operation":"Update","time":"2026-01-01T11:00:00Z","subresource":"scale"}],`,
			"kube-controller-manager Update scale 11:00:00, scaled by kube-controller-manager"},
		{"of a custom resource it has no date", `"managedFields":[{"manager":"kubectl","operation":"Update","subresource":"scale"},{"manager":"alice","operation":"Update","time":"2026-01-01T10:00:00Z"}],`,
			"alice Update  10:00:00, scaled by kubectl"},
		{"in one second the one that is not ours", `"managedFields":[{"manager":"alice","operation":"Update","time":"2026-01-01T10:00:00Z"},{"manager":"shiplog-executor","operation":"Update","time":"2026-01-01T10:00:00Z"}],`,
			"alice Update  10:00:00"},
		{"in one second, ours first", `"managedFields":[{"manager":"shiplog-executor","operation":"Update","time":"2026-01-01T10:00:00Z"},{"manager":"alice","operation":"Update","time":"2026-01-01T10:00:00Z"}],`,
			"alice Update  10:00:00"},
		{"strange entries", `"managedFields":[1,null,{},{"manager":7,"time":3},{"manager":"alice"}],`, "<nil>"},
	} {
		got, err := Normalise(pods, []byte(`{"metadata":{"name":"a",`+c.managed+`"uid":"u","resourceVersion":"7"}}`))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		text := "<nil>"
		if l := got.Observed().GetObjectObserved().GetLastChange(); l != nil {
			text = l.GetManager() + " " + l.GetOperation() + " " + l.GetSubresource() + " "
			if l.GetTime() != nil {
				text += l.GetTime().AsTime().Format("15:04:05")
			}
			if l.GetScaledBy() != "" {
				text += ", scaled by " + l.GetScaledBy()
			}
		}
		if text != c.want {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
	}
}
