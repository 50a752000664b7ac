package journal

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"
)

const (
	// embeddedPayload is the largest message of an embedded server in bytes: twice the largest object Kubernetes stores.
	embeddedPayload = maxEntry / 2
	serverStart     = 10 * time.Second
	// storeLimit is no limit. Left to itself the server takes three quarters of what is free when it starts for ever after: too little
	// for the log on a small disk, and nothing on a full one.
	storeLimit = 1 << 60
	// examineEvery is how often the server is asked whether it can still write, and roomToWrite how much room, in bytes, the disk must
	// have before a server that could not is started anew.
	examineEvery = 2 * time.Second
	roomToWrite  = 16 << 20
)

// embedded is a NATS server in this process, alone on its directory. A server that failed to write, as it does on a full disk,
// never writes again: another one takes its place when there is room, and clients come back to that.
type embedded struct {
	options server.Options
	// cluster is the token in the subjects that agents use.
	cluster string
	log     serverLog
	lock    *fileLock
	// token is the password of embeddedUser. Whoever learns it may do all that we may.
	token string
	// issuer signs what the server is told of agents.
	issuer nkeys.KeyPair
	// listens is the address for other clients; empty: there is none.
	listens string

	mu      sync.Mutex
	current *server.Server // nil between two
	ended   chan struct{}
	end     func() // closes ended, once
	examine sync.WaitGroup
}

// embeddedUser is everybody but the agents.
const embeddedUser = "shiplog"

func startServer(o Options) (*embedded, error) {
	fail := func(err error) (*embedded, error) {
		return nil, fmt.Errorf("start the log's server in %s: %w", o.Directory, err)
	}
	so := &server.Options{
		ServerName:         "shiplog",
		JetStream:          true,
		StoreDir:           o.Directory,
		JetStreamMaxMemory: -1,
		JetStreamMaxStore:  storeLimit,
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
	e := &embedded{cluster: o.Cluster, log: serverLog{o.Log.With().Str("part", "nats").Logger(), o.Refused}, lock: lock, ended: make(chan struct{})}
	e.end = sync.OnceFunc(func() { close(e.ended) })
	if err := e.guard(so); err != nil {
		lock.Close()
		return fail(err)
	}
	e.options = *so
	if err := e.start(); err != nil {
		lock.Close()
		return fail(err)
	}
	if address, is := e.current.Addr().(*net.TCPAddr); is {
		e.listens, e.options.Port = address.String(), address.Port // clients come back to the same one
	}
	e.examine.Go(e.examineAlways)
	return e, nil
}

// start starts a server.
func (e *embedded) start() error {
	options := e.options // the server changes what it is given
	s, err := server.NewServer(&options)
	if err != nil {
		return err
	}
	s.SetLoggerV2(e.log, e.log.log.GetLevel() <= zerolog.DebugLevel, false, false)
	s.Start()
	err = fmt.Errorf("%w: it was not ready after %s", ErrUnavailable, serverStart)
	if s.ReadyForConnections(serverStart) && s.JetStreamEnabled() {
		err = letAgentsIn(s, e.cluster)
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current = s
	return nil
}

// now returns the server; nil: there is none at the moment.
func (e *embedded) now() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

// InProcessConn connects to whatever server there is.
func (e *embedded) InProcessConn() (net.Conn, error) {
	if s := e.now(); s != nil {
		return s.InProcessConn()
	}
	return nil, fmt.Errorf("%w: the log's server is being started anew", ErrUnavailable)
}

// examineAlways puts another server in the place of one that cannot write any more, until stop.
func (e *embedded) examineAlways() {
	ticker := time.NewTicker(examineEvery)
	defer ticker.Stop()
	said := false
	for {
		select {
		case <-e.ended:
			return
		case <-ticker.C:
		}
		s := e.now()
		if s != nil {
			why := cannotWrite(s)
			if why == "" {
				said = false
				continue
			}
			if !said {
				e.log.log.Error().Str("error", why).Str("directory", e.options.StoreDir).
					Msg("the log cannot write and takes nothing; it goes on when the disk has room")
				said = true
			}
			if room(e.options.StoreDir) < roomToWrite {
				continue
			}
			e.retire()
		}
		if err := e.start(); err != nil {
			e.log.log.Error().Err(err).Msg("cannot start the log's server anew; trying again")
			continue
		}
		e.log.log.Info().Msg("the log's server was started anew")
	}
}

// cannotWrite says why a server's streams take nothing any more; empty: they do.
func cannotWrite(s *server.Server) string {
	for _, one := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if one.Type == server.HealthzErrorStream {
			return one.Error
		}
	}
	return ""
}

// room is how many bytes the disk under a directory has left.
func room(directory string) uint64 {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(directory, &disk); err != nil {
		return 0
	}
	return disk.Bavail * uint64(disk.Bsize)
}

// retire ends the server.
func (e *embedded) retire() {
	e.mu.Lock()
	s := e.current
	e.current = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// guard has the server let in who knows the token; of everybody else it asks, by a callout, who that is.
func (e *embedded) guard(so *server.Options) (err error) {
	if e.token, err = clientToken(filepath.Join(so.StoreDir, "token")); err != nil {
		return err
	}
	if e.issuer, err = nkeys.CreateAccount(); err != nil {
		return err
	}
	issuer, err := e.issuer.PublicKey()
	if err != nil {
		return err
	}
	// The server wants no plain passwords. The token is random and 128 bits long: the cheapest hash will do.
	hash, err := bcrypt.GenerateFromPassword([]byte(e.token), bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("hash the token for clients: %w", err)
	}
	so.Username, so.Password = embeddedUser, string(hash)
	so.AuthCallout = &server.AuthCallout{Issuer: issuer, Account: server.DEFAULT_GLOBAL_ACCOUNT, AuthUsers: []string{embeddedUser}}
	so.AlwaysEnableNonce = true
	so.AuthTimeout = (identifyWait + time.Second).Seconds()
	return nil
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
	return (&url.URL{Scheme: "nats", User: url.UserPassword(embeddedUser, e.token), Host: e.listens}).String()
}

// stop ends the server and lets another process have the directory.
func (e *embedded) stop() {
	e.end()
	e.examine.Wait()
	e.retire()
	e.lock.Close()
}

// serverLog gives the server's lines to zerolog. What the server notices routinely is detail to us.
type serverLog struct {
	log zerolog.Logger
	// refused is told when a client tries what it may not; may be nil.
	refused func(what string)
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug().Msgf(format, v...) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warn().Msgf(format, v...) }
func (l serverLog) Errorf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	if l.refused != nil {
		switch {
		case strings.Contains(line, "Publish Violation"):
			l.refused("publish")
		case strings.Contains(line, "Subscription Violation"):
			l.refused("subscribe")
		}
	}
	l.log.Error().Msg(line)
}
func (l serverLog) Fatalf(format string, v ...any) { l.log.Error().Msgf(format, v...) }
func (l serverLog) Debugf(format string, v ...any) { l.log.Trace().Msgf(format, v...) }
func (l serverLog) Tracef(format string, v ...any) { l.log.Trace().Msgf(format, v...) }
