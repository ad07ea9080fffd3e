package device

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/crypto/utils"
	"maunium.net/go/mautrix/id"
)

// errNotStored means that what signs the user's devices is not kept at the homeserver, or not all of it.
var errNotStored = errors.New("the homeserver does not keep what signs the devices")

// sign has the device signed by its user, by what the recovery key opens, or by keys that it makes if the user has none yet. It
// reports whether it is signed. An error is one that may pass; one that does not is told to the operator, and the device
// goes on without.
func (d *Device) sign(ctx context.Context, l *life) (signed bool, err error) {
	user := d.options.Agent.User()
	published, err := publicMaster(ctx, l, user)
	if err != nil {
		return false, err
	}
	recovery, err := d.options.Vault.Recovery.key(user)
	if err != nil {
		return false, err
	}
	if recovery == "" && published != "" {
		// Homeservers let nobody replace the keys without a password, save those of application services with MSC4190.
		d.log.Warn("the recovery key is missing, though there are keys that it opens: trying to make new ones", "file", d.options.Vault.Recovery.file)
	}
	err = errNotStored
	if recovery != "" {
		err = fetchSeeds(ctx, l, recovery)
	}
	if errors.Is(err, errNotStored) {
		err = d.makeSeeds(ctx, l, recovery)
	}
	if err != nil {
		return false, d.unsigned(err)
	}
	keys := l.machine.CrossSigningKeys
	if published != keys.MasterKey.PublicKey() {
		if err := l.machine.PublishCrossSigningKeys(ctx, keys, nil); err != nil {
			return false, d.unsigned(err)
		}
	}
	if isSigned(ctx, l, keys) {
		return true, nil
	}
	if err := l.machine.SignOwnDevice(ctx, l.machine.OwnIdentity()); err != nil {
		return false, d.unsigned(err)
	}
	if err := l.machine.SignOwnMasterKey(ctx); err != nil {
		return false, d.unsigned(err)
	}
	return true, nil
}

// unsigned tells the operator why the device stays without a signature, unless that may pass: then it is the error.
func (d *Device) unsigned(err error) error {
	var answer mautrix.HTTPError
	if !errors.As(err, &answer) && !errors.Is(err, ssss.ErrIncorrectSSSSKey) && !errors.Is(err, ssss.ErrInvalidRecoveryKey) {
		return err
	}
	if errors.As(err, &answer) && (answer.Response == nil || answer.Response.StatusCode == http.StatusTooManyRequests || answer.Response.StatusCode >= http.StatusInternalServerError) {
		return err
	}
	d.log.Error("the device is not signed: clients that trust signed devices only do not let it read. Put the right recovery key into the file, "+
		"or have the homeserver forget the user's keys for signing (docs/operator/bot.md), and start again", "file", d.options.Vault.Recovery.file, "err", err)
	return nil
}

// publicMaster is what everybody may know of what signs the user's devices, empty if there is nothing.
func publicMaster(ctx context.Context, l *life, user id.UserID) (id.Ed25519, error) {
	known, err := l.machine.Client.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {}}})
	if err != nil {
		return "", fmt.Errorf("ask for our public keys: %w", err)
	}
	master := known.MasterKeys[user]
	return master.FirstKey(), nil
}

// fetchSeeds opens what the homeserver keeps.
func fetchSeeds(ctx context.Context, l *life, recovery string) error {
	name, data, err := l.machine.SSSS.GetDefaultKeyData(ctx)
	if absent(err) {
		return errNotStored
	} else if err != nil {
		return err
	}
	key, err := data.VerifyRecoveryKey(name, recovery)
	if err != nil {
		return err
	}
	if err = l.machine.FetchCrossSigningKeysFromSSSS(ctx, key); absent(err) {
		return errNotStored
	}
	return err
}

func absent(err error) bool {
	return errors.Is(err, mautrix.MNotFound) || errors.Is(err, ssss.ErrNoDefaultKeyAccountDataEvent) || errors.Is(err, ssss.ErrNoKeyFieldInAccountDataEvent)
}

// makeSeeds makes what signs the user's devices, and has the homeserver keep it. The recovery key is in its file before
// anything depends on it.
func (d *Device) makeSeeds(ctx context.Context, l *life, recovery string) error {
	key, err := ssss.NewKey("")
	if recovery != "" {
		key, err = ssss.WrapKey(utils.DecodeBase58RecoveryKey(recovery), nil)
	}
	if err != nil {
		return err
	}
	user := d.options.Agent.User()
	if recovery == "" {
		if err := d.options.Vault.Recovery.keep(user, key.RecoveryKey()); err != nil {
			return err
		}
		d.log.Info("a recovery key is written: keep a copy of the file", "file", d.options.Vault.Recovery.file)
	}
	seeds, err := l.machine.GenerateCrossSigningKeys()
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error { return l.machine.SSSS.SetKeyData(ctx, key.ID, key.Metadata) },
		func() error { return l.machine.UploadCrossSigningKeysToSSSS(ctx, key, seeds) },
		func() error { return l.machine.SSSS.SetDefaultKeyID(ctx, key.ID) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return l.machine.ImportCrossSigningKeys(seeds.Seeds())
}

// isSigned reports whether the homeserver has the device's signature.
func isSigned(ctx context.Context, l *life, keys *crypto.CrossSigningKeysCache) bool {
	user := l.machine.Client.UserID
	known, err := l.machine.Client.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {l.device}}})
	if err != nil {
		return false
	}
	device := known.DeviceKeys[user][l.device]
	return device.Signatures[user][id.NewKeyID(id.KeyAlgorithmEd25519, string(keys.SelfSigningKey.PublicKey()))] != ""
}
