package token_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"callserver/signalling/token"
)

func ExampleKeys_Mint() {
	keys := token.Keys{"devkey": "secret"}
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	raw, err := keys.Mint("devkey", token.Join("room", "alice"), time.Hour, noon)
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	fmt.Println(string(claims))
	// Output: {"iss":"devkey","sub":"alice","exp":1795438800,"nbf":1795435200,"video":{"room":"room","roomJoin":true,"roomCreate":false,"canPublish":true,"canSubscribe":true,"canPublishData":true,"canUpdateOwnMetadata":false,"hidden":false}}
}

func ExampleKeys_Verify() {
	keys := token.Keys{"devkey": "secret"}
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	raw, _ := keys.Mint("devkey", token.Join("room", "alice"), time.Hour, noon)

	g, err := keys.Verify(raw, noon)
	fmt.Println(g.Identity, g.Room, g.RoomJoin, g.CanPublish, err)

	_, err = keys.Verify(raw, noon.Add(2*time.Hour))
	fmt.Println(err, errors.Is(err, token.ErrExpired))
	// Output:
	// alice room true true <nil>
	// token has expired true
}
