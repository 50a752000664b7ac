package nodeagent

import (
	"os"
	"strings"
)

// bootID names the machine's present boot, which outlives every container and this process; empty where there is none.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // as the kubelet has it in the Node's status
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
