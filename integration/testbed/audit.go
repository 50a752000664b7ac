package testbed

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Audit is what is read of one line of the API server's audit log.
type Audit struct {
	AuditID    string `json:"auditID"`
	Verb       string `json:"verb"`
	RequestURI string `json:"requestURI"`
	UserAgent  string `json:"userAgent"`
	ObjectRef  struct {
		Resource    string `json:"resource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
		UID         string `json:"uid"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Received time.Time `json:"requestReceivedTimestamp"`
	Answered time.Time `json:"stageTimestamp"`
}

// Writes says whether the request would change something, if it was let through.
func (a Audit) Writes() bool {
	if strings.Contains(a.RequestURI, "dryRun=") {
		return false
	}
	switch a.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

// Ours says whether the request came from a service of Shiplog.
func (a Audit) Ours() bool { return strings.HasPrefix(a.UserAgent, "shiplog-") }

// AuditLog reads the API server's audit log as it grows.
type AuditLog struct {
	path string
	read int64 // bytes read so far
}

// AuditLog returns a reader of the cluster's audit log, from its beginning.
func (c *Cluster) AuditLog() *AuditLog { return &AuditLog{path: filepath.Join(c.Dir, "audit.log")} }

// Next returns the requests that were finished since the last call, in the order in which they finished.
func (l *AuditLog) Next() ([]Audit, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(l.read, io.SeekStart); err != nil {
		return nil, err
	}
	var lines []Audit
	reader := bufio.NewReaderSize(file, 1<<16)
	for {
		text, err := reader.ReadBytes('\n')
		if err == io.EOF {
			break // what is there of the last line is read next time
		}
		if err != nil {
			return nil, err
		}
		l.read += int64(len(text))
		var line Audit
		if json.Unmarshal(text, &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
