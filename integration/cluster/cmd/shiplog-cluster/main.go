package main

import (
	"os"

	"shiplog.dev/integration/cluster/components"
)

func main() {
	components.Run(os.Args)
}
