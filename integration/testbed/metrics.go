package testbed

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
)

// sumOf adds up the samples of one metric in Prometheus' text format.
func sumOf(text io.Reader, name string) (float64, error) {
	sum := 0.0
	scanner := bufio.NewScanner(text)
	for scanner.Scan() {
		line := scanner.Text()
		rest, ours := strings.CutPrefix(line, name)
		if !ours || (!strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "{")) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, scanner.Err()
}

// FreeAddress returns an address of this machine at which nobody listens.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
