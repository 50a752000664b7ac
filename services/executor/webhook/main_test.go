package webhook_test

import (
	"testing"

	"shiplog.dev/deploy/crd/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m) }
