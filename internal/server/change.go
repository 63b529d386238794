package server

// Change changes a configuration. It is what the options of package keyturntest are made of, whose
// exported names must not mention this package.
type Change func(*Config)

// Apply changes config, a *Config.
func (f Change) Apply(config any) { f(config.(*Config)) }
