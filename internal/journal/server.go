package journal

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

const (
	// embeddedPayload is the largest message of an embedded server in bytes: twice the largest object Kubernetes stores.
	embeddedPayload = maxEntry / 2
	serverStart     = 10 * time.Second
)

// embedded is a NATS server in this process, alone on its directory.
type embedded struct {
	*server.Server
	lock *os.File
	// token is what a client must show. Whoever learns it may do all that we may.
	token string
}

func startServer(o Options) (*embedded, error) {
	fail := func(err error) (*embedded, error) {
		return nil, fmt.Errorf("start the log's server in %s: %w", o.Directory, err)
	}
	so := &server.Options{
		ServerName:         "shiplog",
		JetStream:          true,
		StoreDir:           o.Directory,
		JetStreamMaxMemory: -1,
		JetStreamMaxStore:  -1,
		SyncAlways:         o.Durability == Strict,
		MaxPayload:         embeddedPayload,
		DontListen:         true,
		NoSigs:             true,
		NoSystemAccount:    false,
	}
	if o.StoreLimit > 0 {
		so.JetStreamMaxStore = o.StoreLimit
	}
	if o.Listen != "" {
		host, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return fail(err)
		}
		so.DontListen = false
		so.Host = host
		if so.Port, err = strconv.Atoi(port); err != nil {
			return fail(fmt.Errorf("port of %q: %w", o.Listen, err))
		}
		if so.Port == 0 {
			so.Port = server.RANDOM_PORT
		}
	}
	if err := os.MkdirAll(o.Directory, 0o700); err != nil {
		return fail(err)
	}
	lock, err := lockFile(filepath.Join(o.Directory, "shiplog.lock"))
	if err != nil {
		return fail(err)
	}
	if so.Authorization, err = clientToken(filepath.Join(o.Directory, "token")); err != nil {
		lock.Close()
		return fail(err)
	}
	s, err := server.NewServer(so)
	if err != nil {
		lock.Close()
		return fail(err)
	}
	s.SetLoggerV2(serverLog{o.Log.With().Str("part", "nats").Logger()}, o.Log.GetLevel() <= zerolog.DebugLevel, false, false)
	e := &embedded{Server: s, lock: lock, token: so.Authorization}
	s.Start()
	if !s.ReadyForConnections(serverStart) || !s.JetStreamEnabled() {
		e.stop()
		return fail(fmt.Errorf("%w: it was not ready after %s", ErrUnavailable, serverStart))
	}
	return e, nil
}

// clientToken returns the token kept in a file, made at first use. It stays, so that clients come back after a restart.
func clientToken(path string) (string, error) {
	held, err := os.ReadFile(path)
	if err == nil && len(held) > 0 {
		return string(held), nil
	}
	token := rand.Text()
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		return "", fmt.Errorf("keep the token for clients: %w", err)
	}
	return token, nil
}

// address is the URL at which others reach the server, token included.
func (e *embedded) address() string {
	return (&url.URL{Scheme: "nats", User: url.User(e.token), Host: e.Addr().String()}).String()
}

// stop ends the server and lets another process have the directory.
func (e *embedded) stop() {
	e.Shutdown()
	e.WaitForShutdown()
	e.lock.Close()
}

// serverLog gives the server's lines to zerolog. What the server notices routinely is detail to us.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug().Msgf(format, v...) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warn().Msgf(format, v...) }
func (l serverLog) Errorf(format string, v ...any)  { l.log.Error().Msgf(format, v...) }
func (l serverLog) Fatalf(format string, v ...any)  { l.log.Error().Msgf(format, v...) }
func (l serverLog) Debugf(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }
func (l serverLog) Tracef(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }
