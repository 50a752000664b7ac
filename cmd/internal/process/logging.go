package process

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
)

// Logging says how log lines look.
type Logging struct {
	format  string
	verbose bool
}

// Bind adds the flags that say so.
func (l *Logging) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&l.format, "log-format", "console", "format of log lines: console or json")
	flags.BoolVarP(&l.verbose, "verbose", "v", false, "log more")
}

// Logger for this process.
func (l *Logging) Logger() (zerolog.Logger, error) {
	var out io.Writer = os.Stderr
	switch l.format {
	case "console":
		out = zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != "" || !IsTerminal(os.Stderr)}
	case "json":
	default:
		return zerolog.Nop(), Usage(fmt.Errorf("--log-format %q is neither console nor json", l.format))
	}
	level := zerolog.InfoLevel
	if l.verbose {
		level = zerolog.DebugLevel
	}
	return zerolog.New(out).Level(level).With().Timestamp().Logger(), nil
}

// IsTerminal says whether something is for eyes.
func IsTerminal(out io.Writer) bool {
	file, is := out.(*os.File)
	if !is {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
