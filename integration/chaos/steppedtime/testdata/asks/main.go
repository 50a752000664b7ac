// Command asks prints how far the wall clock went and how long it took, each time it reads a line.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

func main() {
	began := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		now := time.Now()
		fmt.Println(now.Round(0).Sub(began.Round(0)).Round(time.Minute), now.Sub(began).Round(time.Minute))
	}
}
