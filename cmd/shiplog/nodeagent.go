package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/agent"
)

// agentProgram is the node agent without everything else that this program holds; it is built from cmd/shiplog-nodeagent.
const agentProgram = "shiplog-nodeagent"

// nodeagentCommand runs the agent of one node: by the small program if that lies beside this one, else itself.
func nodeagentCommand() *cobra.Command {
	command := agent.Command("shiplog nodeagent")
	command.Long += "\n\nIf the program " + agentProgram + " lies beside this one, as `make build` puts it, it takes over: the same agent, in less memory."
	itself := command.RunE
	command.RunE = func(command *cobra.Command, arguments []string) error {
		self, err := os.Executable()
		if err != nil {
			return itself(command, arguments)
		}
		beside := filepath.Join(filepath.Dir(self), agentProgram)
		if _, err := os.Stat(beside); err != nil {
			return itself(command, arguments)
		}
		at := slices.Index(os.Args, command.Name())
		if err := syscall.Exec(beside, append([]string{agentProgram}, os.Args[at+1:]...), os.Environ()); err != nil {
			return fmt.Errorf("run %s in the place of this program: %w", beside, err)
		}
		return nil
	}
	return command
}
