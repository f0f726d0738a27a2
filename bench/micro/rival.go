// Go's side of the micro benches: reads "operation count ..." a line, does that many, prints ns for
// each. Started by rivals.py with GOMAXPROCS=1.

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

const tasks = 100

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func check(err error) { must(0, err) }

func switches(count int) time.Duration {
	turns := max(1, count/tasks)
	done := make(chan bool)
	began := time.Now()
	for range tasks {
		go func() {
			for range turns {
				runtime.Gosched()
			}
			done <- true
		}()
	}
	for range tasks {
		<-done
	}
	return time.Since(began) * time.Duration(count) / time.Duration(tasks*turns)
}

func spawns(count int) time.Duration {
	done := make(chan bool)
	began := time.Now()
	for range count {
		go func() { done <- true }()
		<-done
	}
	return time.Since(began)
}

func channels(count int) time.Duration {
	out, back := make(chan int), make(chan int)
	go func() {
		for value := range out {
			back <- value
		}
	}()
	began := time.Now()
	for i := range count {
		out <- i
		<-back
	}
	took := time.Since(began)
	close(out)
	return took
}

func timers(count int) time.Duration {
	const number = 10000
	all := make([]*time.Timer, number)
	for i := range all {
		all[i] = time.NewTimer(time.Hour)
	}
	moves := max(1, count/number)
	began := time.Now()
	for i := range moves {
		for _, timer := range all {
			timer.Reset(time.Hour + time.Duration(i)*time.Millisecond)
		}
	}
	took := time.Since(began)
	for _, timer := range all {
		timer.Stop()
	}
	return took * time.Duration(count) / time.Duration(moves*number)
}

func unixPair() (net.Conn, net.Conn) {
	fds := must(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		ends[i] = must(net.FileConn(file))
		file.Close()
	}
	return ends[0], ends[1]
}

func tcpPair() (net.Conn, net.Conn) {
	listener := must(net.Listen("tcp4", "127.0.0.1:0"))
	defer listener.Close()
	ours := must(net.Dial("tcp4", listener.Addr().String()))
	return ours, must(listener.Accept())
}

func trips(ours, theirs net.Conn, size, count int) time.Duration {
	defer ours.Close()
	go func() {
		defer theirs.Close()
		buffer := make([]byte, 65536)
		for {
			n, err := theirs.Read(buffer)
			if err != nil {
				return
			}
			must(theirs.Write(buffer[:n]))
		}
	}()
	message, buffer := make([]byte, size), make([]byte, 65536)
	began := time.Now()
	for range count {
		must(ours.Write(message))
		if n := must(ours.Read(buffer)); n != size {
			check(fmt.Errorf("%d bytes came back of %d", n, size))
		}
	}
	return time.Since(began)
}

func connects(count int) time.Duration {
	listener := must(net.Listen("tcp4", "127.0.0.1:0"))
	address := listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	byte1 := make([]byte, 1)
	began := time.Now()
	for range count {
		conn := must(net.Dial("tcp4", address))
		if n, err := conn.Read(byte1); n != 0 || err == nil {
			check(fmt.Errorf("read %d bytes where the end was due", n))
		}
		conn.Close()
	}
	took := time.Since(began)
	listener.Close()
	return took
}

func deadlines(count int, set func(conn net.Conn, i int)) time.Duration {
	ours, theirs := unixPair()
	defer ours.Close()
	defer theirs.Close()
	began := time.Now()
	for i := range count {
		set(ours, i)
	}
	return time.Since(began)
}

func setAndClear(conn net.Conn, i int) {
	check(conn.SetReadDeadline(time.Now().Add(time.Hour)))
	check(conn.SetReadDeadline(time.Time{}))
}

func later(conn net.Conn, i int) {
	check(conn.SetReadDeadline(time.Now().Add(time.Hour)))
}

func earlier(conn net.Conn, i int) {
	ahead := 1000*time.Hour - time.Duration(i)*time.Millisecond
	check(conn.SetReadDeadline(time.Now().Add(ahead)))
}

func expire(count int) time.Duration {
	var fired atomic.Int64
	due := time.Now().Add(20 * time.Millisecond)
	for range count {
		time.AfterFunc(time.Until(due), func() { fired.Add(1) })
	}
	for time.Since(due) < 3*time.Millisecond {
	}
	began := time.Now()
	for fired.Load() < int64(count) {
		runtime.Gosched()
	}
	return time.Since(began)
}

func round(operation string, count, size int) time.Duration {
	switch operation {
	case "switch":
		return switches(count)
	case "spawn":
		return spawns(count)
	case "channel":
		return channels(count)
	case "timers":
		return timers(count)
	case "unix":
		ours, theirs := unixPair()
		return trips(ours, theirs, size, count)
	case "tcp":
		ours, theirs := tcpPair()
		return trips(ours, theirs, size, count)
	case "connect":
		return connects(count)
	case "set":
		return deadlines(count, setAndClear)
	case "later":
		return deadlines(count, later)
	case "earlier":
		return deadlines(count, earlier)
	case "expire":
		return expire(count)
	}
	check(fmt.Errorf("no operation %s", operation))
	return 0
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var operation string
		var count, size int
		fmt.Sscan(lines.Text(), &operation, &count, &size)
		runtime.GC()
		fmt.Println(float64(round(operation, count, size).Nanoseconds()) / float64(count))
	}
}
