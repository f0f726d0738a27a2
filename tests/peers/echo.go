// Echo in Go's own net package: the peer that gopoll's tests talk to.
//
//	echo server          listens on 127.0.0.1:0, prints the address, echoes until killed
//	echo client ADDR N   dials ADDR, sends N messages of changing sizes, checks each echo
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "server":
		server()
	case len(os.Args) == 4 && os.Args[1] == "client":
		n, err := strconv.Atoi(os.Args[3])
		check(err)
		client(os.Args[2], n)
	default:
		fmt.Fprintln(os.Stderr, "usage: echo server | echo client ADDR N")
		os.Exit(2)
	}
}

func server() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
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

func client(addr string, n int) {
	conn, err := net.Dial("tcp", addr)
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
	check(conn.(*net.TCPConn).CloseWrite())
	rest, err := io.ReadAll(conn)
	check(err)
	fmt.Println("ok", n, len(rest))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
