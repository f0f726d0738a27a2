// Echo over every network of Go's own net package: the peer of gopoll's tests.
//
//	netecho server NETWORK ADDR           prints the address, echoes until killed
//	netecho client NETWORK ADDR LOCAL N   sends N messages of changing sizes, checks each echo
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
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
		fmt.Fprintln(os.Stderr, "usage: netecho server NETWORK ADDR | client NETWORK ADDR LOCAL N")
		os.Exit(2)
	}
}

func server(network, address string) {
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		conn, err := net.ListenPacket(network, address)
		check(err)
		fmt.Println(conn.LocalAddr())
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buf)
			check(err)
			_, err = conn.WriteTo(buf[:n], from)
			check(err)
		}
	}
	ln, err := net.Listen(network, address)
	check(err)
	fmt.Println(ln.Addr())
	for {
		conn, err := ln.Accept()
		check(err)
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

func client(network, address, local string, n int) {
	var dialer net.Dialer
	if network == "unixgram" {
		dialer.LocalAddr = &net.UnixAddr{Name: local, Net: network}
	}
	conn, err := dialer.Dial(network, address)
	check(err)
	got := make([]byte, 65536)
	for i := 0; i < n; i++ {
		sent := bytes.Repeat([]byte{byte(i)}, 1+i*i%5000)
		_, err = conn.Write(sent)
		check(err)
		size := 0
		if network == "unix" {
			size, err = io.ReadFull(conn, got[:len(sent)])
		} else {
			size, err = conn.Read(got)
		}
		check(err)
		if !bytes.Equal(sent, got[:size]) {
			fmt.Fprintln(os.Stderr, "echo", i, "differs")
			os.Exit(1)
		}
	}
	check(conn.Close())
	fmt.Println("ok", n)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
