module shiplog.dev

go 1.26
