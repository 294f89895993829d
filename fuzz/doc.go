// Package fuzz holds the fuzz targets of what is read from a disk.
package fuzz
