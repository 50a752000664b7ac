package cri

import (
	"fmt"
	"os"
)

// WellKnown are the endpoints at which runtimes listen unless they are told otherwise, the likeliest first.
var WellKnown = []string{
	"unix:///run/containerd/containerd.sock",
	"unix:///var/run/crio/crio.sock",
	"unix:///var/run/cri-dockerd.sock",
}

// Find returns the first well-known endpoint whose socket exists, or "".
func Find() string {
	for _, endpoint := range WellKnown {
		if Check(endpoint) == nil {
			return endpoint
		}
	}
	return ""
}

// Check says what is wrong with an endpoint: its form, or that no socket is there.
func Check(endpoint string) error {
	path, err := Path(endpoint)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is no socket", path)
	}
	return nil
}
