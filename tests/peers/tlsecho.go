// TLS echo in Go's own crypto/tls: the peer that gopoll's tests talk to.
//
//	tlsecho server CERT KEY          listens on 127.0.0.1:0, prints the address, echoes until killed
//	tlsecho client ADDR CA VERSION N dials ADDR, checks N echoes, half-closes, reads the end
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "server":
		server(os.Args[2], os.Args[3])
	case len(os.Args) == 6 && os.Args[1] == "client":
		n, err := strconv.Atoi(os.Args[5])
		check(err)
		client(os.Args[2], os.Args[3], os.Args[4], n)
	default:
		fmt.Fprintln(os.Stderr, "usage: tlsecho server CERT KEY | tlsecho client ADDR CA VERSION N")
		os.Exit(2)
	}
}

func server(cert, key string) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	check(err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"go", "echo"}}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	check(err)
	fmt.Println(ln.Addr())
	for {
		conn, err := ln.Accept()
		check(err)
		go func() {
			defer conn.Close()
			if _, err := io.Copy(conn, conn); err != nil {
				fmt.Println("error:", err)
				return
			}
			fmt.Println("end")
			conn.(*tls.Conn).CloseWrite()
		}()
	}
}

func client(addr, ca, version string, n int) {
	pem, err := os.ReadFile(ca)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: pool, NextProtos: []string{"echo"}}
	if version == "1.2" {
		config.MaxVersion = tls.VersionTLS12
	}
	conn, err := tls.Dial("tcp", addr, config)
	check(err)
	for i := 0; i < n; i++ {
		sent := bytes.Repeat([]byte{byte(i)}, 1+i*i%20000)
		_, err = conn.Write(sent)
		check(err)
		got := make([]byte, len(sent))
		_, err = io.ReadFull(conn, got)
		check(err)
		if !bytes.Equal(sent, got) {
			fmt.Fprintln(os.Stderr, "echo", i, "differs")
			os.Exit(1)
		}
	}
	check(conn.CloseWrite())
	rest, err := io.ReadAll(conn)
	check(err)
	state := conn.ConnectionState()
	fmt.Println("ok", n, len(rest), tls.VersionName(state.Version), state.NegotiatedProtocol)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
