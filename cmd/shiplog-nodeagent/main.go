// Command shiplog-nodeagent is `shiplog nodeagent` and nothing else: a small program, for it runs on every node.
package main

import (
	"shiplog.dev/cmd/internal/agent"
	"shiplog.dev/cmd/internal/process"
)

func main() {
	command := agent.Command("shiplog-nodeagent")
	command.Use, command.Version = "shiplog-nodeagent", process.Version()
	process.Main(command)
}
