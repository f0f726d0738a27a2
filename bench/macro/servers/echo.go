// Go's echo servers: a goroutine and a buffer of 64 KiB for each connection; go-copy has io.Copy,
// which is splice, instead of the buffer. Started by measure.py with GOMAXPROCS=1; net.Listen has the
// system's backlog, net sets NODELAY itself.
//
// echo NAME [PORT [BESIDE [CERTIFICATE]]], as beside.py says. A hog is a goroutine here.

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	blocked  = 100 * time.Millisecond
	rest     = time.Millisecond
	deadline = 30 * time.Second
)

func argument(n int, or string) string {
	if len(os.Args) > n {
		return os.Args[n]
	}
	return or
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 65536)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err = conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func echoInTime(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 65536)
	for {
		conn.SetReadDeadline(time.Now().Add(deadline))
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err = conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func echoCopy(conn net.Conn) {
	defer conn.Close()
	io.Copy(conn, conn)
}

var sink uint64

func compute(long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end); {
		sink++
	}
}

func block(what string) {
	for {
		if what == "compute" {
			compute(blocked)
		} else {
			wait := syscall.NsecToTimespec(int64(blocked))
			syscall.Nanosleep(&wait, nil)
		}
		time.Sleep(rest)
	}
}

func main() {
	listener, err := net.Listen("tcp4", "127.0.0.1:"+argument(2, "0"))
	fail(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	handler := echo
	switch what := argument(3, "none"); what {
	case "hog":
		go compute(time.Hour)
	case "sleep", "syscall", "compute":
		go block(what)
	case "deadlines":
		handler = echoInTime
	}
	switch argument(1, "go") {
	case "go-copy":
		handler = echoCopy
	case "go-tls":
		file := argument(4, "")
		pair, err := tls.LoadX509KeyPair(file, file)
		fail(err)
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	for {
		conn, err := listener.Accept()
		fail(err)
		go handler(conn)
	}
}
