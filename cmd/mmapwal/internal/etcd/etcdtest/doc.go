// Package etcdtest lets etcd's own code write members' directories, which package
// etcd then reads. It is a module of its own, since etcd is large.
//
// The directories in ../testdata come from here: UPDATE=1 go test writes them anew.
package etcdtest
