package nodeimage

import (
	"time"

	"shiplog.dev/internal/world"
)

// Settings of the rules about images, which operators choose. They stand in the planner's fence, so that a replay knows them.
type Settings struct {
	// CreationDelay is how long a Node must have been ready before it gets a NodeImage, and how long it may be not ready before
	// its pulls have failed.
	CreationDelay time.Duration
	// ResponseTime is how long an agent may be silent before its pulls have failed (R10).
	ResponseTime time.Duration
	// Keep is the least time that a tag of a job which ends stays after it was pulled (R21).
	Keep time.Duration
}

// Names of the settings in the fence; their values are seconds.
const (
	SettingCreationDelay = "nodeimage-creation-delay"
	SettingResponseTime  = "nodeimage-response-time"
	SettingKeep          = "default-ttlseconds-for-always-nodeimage"
)

// Defaults, as OpenKruise has them.
var Defaults = Settings{30 * time.Second, 10 * time.Minute, 300 * time.Second}

// SettingsOf returns the settings of the newest fence, with defaults for what it does not name.
func SettingsOf(w *world.World) Settings {
	out := Defaults
	for name, into := range map[string]*time.Duration{ //shiplog:unordered: each writes its own
		SettingCreationDelay: &out.CreationDelay, SettingResponseTime: &out.ResponseTime, SettingKeep: &out.Keep,
	} {
		if seconds, set := w.Setting(name); set {
			*into = time.Duration(seconds) * time.Second
		}
	}
	return out
}

// Numbers are the settings as they stand in a fence: in whole seconds.
func (s Settings) Numbers() map[string]int64 {
	return map[string]int64{
		SettingCreationDelay: int64(s.CreationDelay / time.Second), SettingResponseTime: int64(s.ResponseTime / time.Second), SettingKeep: int64(s.Keep / time.Second),
	}
}
