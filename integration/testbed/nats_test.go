package testbed

import "testing"

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{"0B01F90A:107E": "10.249.1.11:4222", "0100007F:0050": "127.0.0.1:80", "": "", "0B01F90A": "", "zz": ""} {
		if got := address(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
