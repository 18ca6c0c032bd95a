// gotunnel is a tunnel over HTTP/2 as a Go program would have it, on golang.org/x/net/http2: a peer of the benchmarks.
//
//	gotunnel server ADDRESS HOST [CERTIFICATE KEY]   POST /_hbone/PORT leads to HOST:PORT
//	gotunnel client ADDRESS h2c|tls LISTEN=PORT...   each address listened at leads to a port at the server's end
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

const (
	streams          = 20000
	connectionWindow = 24 << 20
	streamWindow     = 16 << 20
	frame            = 1 << 20
	piece            = 64 << 10
)

var pieces = sync.Pool{New: func() any { bytes := make([]byte, piece); return &bytes }}

// carry copies until the end of one side, and sends each piece at once.
func carry(to io.Writer, from io.Reader, flush func()) {
	buffer := pieces.Get().(*[]byte)
	defer pieces.Put(buffer)
	for {
		size, err := from.Read(*buffer)
		if size > 0 {
			if _, failed := to.Write((*buffer)[:size]); failed != nil {
				return
			}
			flush()
		}
		if err != nil {
			return
		}
	}
}

func nothing() {}

func serve(address, host string, pair []string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if len(pair) == 2 {
		certificate, err := tls.LoadX509KeyPair(pair[0], pair[1])
		if err != nil {
			return err
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
	}
	server := &http2.Server{
		MaxConcurrentStreams:         streams,
		MaxUploadBufferPerConnection: connectionWindow,
		MaxUploadBufferPerStream:     streamWindow,
		MaxReadFrameSize:             frame,
	}
	handler := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		target, err := net.Dial("tcp", net.JoinHostPort(host, path.Base(request.URL.Path)))
		if err != nil {
			writer.WriteHeader(http.StatusBadGateway)
			return
		}
		defer target.Close()
		flush := writer.(http.Flusher).Flush
		writer.WriteHeader(http.StatusOK)
		flush()
		go func() {
			carry(target, request.Body, nothing)
			target.(*net.TCPConn).CloseWrite()
		}()
		carry(writer, target, flush)
	})
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			if secure, is := connection.(*tls.Conn); is && secure.Handshake() != nil {
				return
			}
			server.ServeConn(connection, &http2.ServeConnOpts{Handler: handler})
		}()
	}
}

func forward(transport *http2.Transport, base string, listener net.Listener, port string) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer connection.Close()
			// Only a reader: a body that can be closed would close the connection before its answer has come.
			body := struct{ io.Reader }{connection}
			request, err := http.NewRequest(http.MethodPost, base+"/_hbone/"+port, body)
			if err != nil {
				return
			}
			response, err := transport.RoundTrip(request)
			if err != nil {
				return
			}
			defer response.Body.Close()
			carry(connection, response.Body, nothing)
		}()
	}
}

func client(address, mode string, forwards []string) error {
	transport := &http2.Transport{AllowHTTP: true, DisableCompression: true, MaxReadFrameSize: frame}
	scheme := "https"
	if mode == "h2c" {
		scheme = "http"
		transport.DialTLS = func(network, address string, _ *tls.Config) (net.Conn, error) {
			return net.Dial(network, address)
		}
	} else {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // a benchmark's own loopback address
	}
	for _, text := range forwards {
		place, port, _ := strings.Cut(text, "=")
		listener, err := net.Listen("tcp", place)
		if err != nil {
			return err
		}
		go forward(transport, scheme+"://"+address, listener, port)
	}
	select {}
}

func main() {
	words := os.Args[1:]
	if len(words) < 3 {
		fmt.Fprintln(os.Stderr, "usage: gotunnel server ADDRESS HOST [CERTIFICATE KEY] | client ADDRESS h2c|tls LISTEN=PORT...")
		os.Exit(2)
	}
	run := map[string]func(string, string, []string) error{"server": serve, "client": client}[words[0]]
	if run == nil {
		os.Exit(2)
	}
	log.Fatal(run(words[1], words[2], words[3:]))
}
