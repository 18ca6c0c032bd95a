// hello ADDRESS NAME plain|old|ech: sends crypto/tls' ClientHello to an address.
//
// "ech" encrypts the true name for a key made here, and says ech.example before all eyes.
package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"os"
)

const public = "ech.example"

// keys is an ECHConfigList of one configuration (RFC 9849, section 4): X25519, HKDF-SHA256, AES-128-GCM.
func keys() ([]byte, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key := private.PublicKey().Bytes()
	contents := []byte{1, 0x00, 0x20}
	contents = binary.BigEndian.AppendUint16(contents, uint16(len(key)))
	contents = append(contents, key...)
	contents = append(contents, 0, 4, 0, 1, 0, 1) // cipher suites: one
	contents = append(contents, 0, byte(len(public)))
	contents = append(contents, public...)
	contents = append(contents, 0, 0) // no extensions
	config := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(contents)))
	config = append(config, contents...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...), nil
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: hello ADDRESS NAME plain|old|ech")
		os.Exit(2)
	}
	address, name, kind := os.Args[1], os.Args[2], os.Args[3]
	config := &tls.Config{ServerName: name, NextProtos: []string{"h2"}, InsecureSkipVerify: name == ""}
	if kind == "old" {
		config.MaxVersion = tls.VersionTLS12
	}
	if kind == "ech" {
		list, err := keys()
		if err != nil {
			panic(err)
		}
		config.EncryptedClientHelloConfigList, config.MinVersion = list, tls.VersionTLS13
	}
	connection, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	// It fails, as nobody answers; what it has sent is what counts.
	_ = tls.Client(connection, config).Handshake()
}
