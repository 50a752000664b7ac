package kubeevent

import (
	"testing"

	"shiplog.dev/deploy/crd/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m) }
