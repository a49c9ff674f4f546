-- A blob service that keeps nothing and answers at once: see _stand_in.py.
--
-- A container's name says what is in it: n50000-s4096-l20-m holds 50,000 blobs of 4,096 zero bytes,
-- answers after 20 ms, and gives Content-MD5. Blobs are dNNNN/fNNNNNNN.bin, 1,000 to a folder. What
-- is put is counted and forgotten; HEAD finds every name, with the container's size.

local MIB = 1048576
local PAGE = 5000
local IN_A_FOLDER = 1000
local DATE = "Wed, 25 Nov 2026 01:00:00 GMT"
local ETAG = "0x8DE000000000000"
local REQUEST_ID = "11111111-2222-3333-4444-555555555555"

local stand_in = {}
local containers, zeros, md5s = {}, {}, {}
local rule, facts

local function forget()
    facts = {
        puts = 0, blocks = 0, commits = 0, gets = 0, heads = 0, lists = 0, refused = 0,
        bytes_in = 0, bytes_out = 0, first = 0, first_data = 0, last = 0,
    }
end

local function obey(new)
    -- every: each n-th request of data is refused; per_second: all above so many are.
    rule = { every = new.every or 0, per_second = new.per_second or 0,
             retry_after = new.retry_after or 1, seen = 0, second = 0, in_second = 0 }
end

forget()
obey({})
local latency = 0

local function container_of(uri)
    local name = string.match(uri, "^/[^/]+/([^/]+)")
    local known = containers[name or ""]
    if known == nil then
        name = name or ""
        local count, size = string.match(name, "^n(%d+)%-s(%d+)")
        known = {
            count = tonumber(count) or 0, size = tonumber(size) or 0,
            latency = (tonumber(string.match(name, "%-l(%d+)")) or 0) / 1000,
            md5 = string.find(name, "%-m") ~= nil,
        }
        containers[name] = known
    end
    return known
end

local function zeros_of(length)
    local body = zeros[length]
    if body == nil then
        body = string.rep("\0", length)
        zeros[length] = body
    end
    return body
end

local function md5_of(length)
    -- Those of long bodies were made before the start: here they would hold up every connection.
    local digest = digests[length] or md5s[length]
    if digest == nil then
        digest = ngx.encode_base64(ngx.md5_bin(string.rep("\0", length)))
        md5s[length] = digest
    end
    return digest
end

local function name_of(index)
    return string.format("d%04d/f%07d.bin", math.floor(index / IN_A_FOLDER), index)
end

local function answer(status, body, kind)
    ngx.status = status
    ngx.header["Content-Length"] = #body
    if kind then ngx.header["Content-Type"] = kind end
    ngx.print(body)
    return ngx.exit(status)
end

local function common()
    local header = ngx.header
    header["x-ms-request-id"] = REQUEST_ID
    header["x-ms-version"] = "2021-12-02"
    return header
end

local function refused()
    if rule.every == 0 and rule.per_second == 0 then return false end
    rule.seen = rule.seen + 1
    local second = math.floor(ngx.now())
    if second ~= rule.second then rule.second, rule.in_second = second, 0 end
    rule.in_second = rule.in_second + 1
    return (rule.every > 0 and rule.seen % rule.every == 0)
        or (rule.per_second > 0 and rule.in_second > rule.per_second)
end

local function refuse()
    facts.refused = facts.refused + 1
    local header = common()
    header["Retry-After"] = rule.retry_after
    header["x-ms-error-code"] = "ServerBusy"
    return answer(503, '<?xml version="1.0" encoding="utf-8"?><Error><Code>ServerBusy</Code>' ..
        "<Message>The server is busy.</Message></Error>", "application/xml")
end

-- --- listings ------------------------------------------------------------------------------------

local BLOB = "<Blob><Name>%s</Name><Properties><Creation-Time>" .. DATE .. "</Creation-Time>" ..
    "<Last-Modified>" .. DATE .. "</Last-Modified><Etag>" .. ETAG .. "</Etag>" ..
    "<Content-Length>%d</Content-Length><Content-Type>application/octet-stream</Content-Type>%s" ..
    "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>" ..
    "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>" ..
    "<ServerEncrypted>true</ServerEncrypted></Properties></Blob>"

local function list(container, args)
    local first, last, prefix = 0, container.count, args.prefix or ""
    if type(prefix) ~= "string" then prefix = "" end
    local out = { '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>' }
    local marker = ""
    local wanted = tonumber(string.match(prefix, "^d(%d%d%d%d)/"))
    local at = tonumber(string.match(prefix, "^d%d+/f(%d+)%.bin$"))
    if at then
        first, last = at, math.min(last, at + 1)
    elseif wanted then
        first, last = wanted * IN_A_FOLDER, math.min(last, (wanted + 1) * IN_A_FOLDER)
    elseif prefix ~= "" then
        last = 0
    end
    if args.delimiter and prefix == "" then
        for number = 0, math.ceil(last / IN_A_FOLDER) - 1 do
            out[#out + 1] = string.format("<BlobPrefix><Name>d%04d/</Name></BlobPrefix>", number)
        end
    else
        first = math.max(first, tonumber(args.marker) or 0)
        local stop = math.min(last, first + math.min(PAGE, tonumber(args.maxresults) or PAGE))
        local md5 = ""
        if container.md5 then md5 = "<Content-MD5>" .. md5_of(container.size) .. "</Content-MD5>" end
        for index = first, stop - 1 do
            out[#out + 1] = string.format(BLOB, name_of(index), container.size, md5)
        end
        if stop < last then marker = tostring(stop) end
    end
    out[#out + 1] = "</Blobs><NextMarker>" .. marker .. "</NextMarker></EnumerationResults>"
    return table.concat(out)
end

-- --- requests ------------------------------------------------------------------------------------

local function put(args, container)
    ngx.req.read_body()
    ngx.update_time()
    if args.restype == nil then
        if facts.first_data == 0 then facts.first_data = ngx.now() end
        if refused() then return refuse() end
    end
    local pause = latency + container.latency
    if pause > 0 then ngx.sleep(pause) end
    facts.bytes_in = facts.bytes_in + (tonumber(ngx.var.http_content_length) or 0)
    if args.comp == nil and args.restype == nil then
        facts.puts = facts.puts + 1
    elseif args.comp == "block" then
        facts.blocks = facts.blocks + 1
    elseif args.comp == "blocklist" then
        facts.commits = facts.commits + 1
    end
    local header = common()
    header["ETag"] = '"' .. ETAG .. '"'
    header["Last-Modified"] = DATE
    header["x-ms-request-server-encrypted"] = "true"
    header["Content-Length"] = 0
    if ngx.var.http_content_md5 then header["Content-MD5"] = ngx.var.http_content_md5 end
    ngx.status = 201
    return ngx.exit(201)
end

local function describe()
    local header = common()
    header["ETag"] = '"' .. ETAG .. '"'
    header["Last-Modified"] = DATE
    header["x-ms-creation-time"] = DATE
    header["x-ms-blob-type"] = "BlockBlob"
    header["x-ms-server-encrypted"] = "true"
    header["Content-Type"] = "application/octet-stream"
    header["Accept-Ranges"] = "bytes"
    return header
end

local function get(container)
    if facts.first_data == 0 then facts.first_data = ngx.now() end
    if refused() then return refuse() end
    facts.gets = facts.gets + 1
    local size = container.size
    local header = describe()
    local first, last = 0, size - 1
    local asked = ngx.var.http_x_ms_range or ngx.var.http_range
    if asked then
        local a, b = string.match(asked, "bytes=(%d+)%-(%d*)")
        first, last = tonumber(a), math.min(tonumber(b) or size - 1, size - 1)
        if first >= size then
            header["Content-Range"] = "bytes */" .. size
            header["x-ms-error-code"] = "InvalidRange"
            return answer(416, "")
        end
    end
    local length = last - first + 1
    facts.bytes_out = facts.bytes_out + length
    if asked then
        ngx.status = 206
        header["Content-Range"] = "bytes " .. first .. "-" .. last .. "/" .. size
    end
    if asked and ngx.var.http_x_ms_range_get_content_md5 then
        header["Content-MD5"] = md5_of(length)
    elseif container.md5 then
        -- A range's answer says the whole blob's MD5 by another name.
        header[asked and "x-ms-blob-content-md5" or "Content-MD5"] = md5_of(size)
    end
    header["Content-Length"] = length
    while length >= MIB do
        ngx.print(zeros_of(MIB))
        ngx.flush(true)
        length = length - MIB
    end
    if length > 0 then ngx.print(zeros_of(length)) end
end

function stand_in.serve()
    local method = ngx.req.get_method()
    local container = container_of(ngx.var.uri)
    local args = ngx.req.get_uri_args()
    ngx.update_time()
    if facts.first == 0 then facts.first = ngx.now() end
    if method == "PUT" then return put(args, container) end
    local pause = latency + container.latency
    if pause > 0 then ngx.sleep(pause) end
    if args.comp == "list" then
        facts.lists = facts.lists + 1
        common()
        return answer(200, list(container, args), "application/xml")
    elseif args.comp == "blocklist" then
        common()
        return answer(200, '<?xml version="1.0" encoding="utf-8"?><BlockList><CommittedBlocks/>' ..
            "<UncommittedBlocks/></BlockList>", "application/xml")
    elseif args.restype then
        local header = common()
        header["ETag"] = '"' .. ETAG .. '"'
        header["Last-Modified"] = DATE
        return answer(200, "")
    elseif method == "HEAD" then
        facts.heads = facts.heads + 1
        local header = describe()
        header["Content-Length"] = container.size
        if container.md5 then header["Content-MD5"] = md5_of(container.size) end
        return ngx.exit(200)
    elseif method == "GET" then
        return get(container)
    elseif method == "DELETE" then
        common()
        ngx.header["Content-Length"] = 0
        ngx.status = 202
        return ngx.exit(202)
    end
    return answer(405, "")
end

function stand_in.note_end()
    ngx.update_time()
    facts.last = ngx.now()
end

-- --- control -------------------------------------------------------------------------------------

function stand_in.control()
    local args = ngx.req.get_uri_args()
    local numbers = {}
    for name, text in pairs(args) do numbers[name] = tonumber(text) end
    local what = ngx.var.uri
    if what == "/_latency" then
        latency = numbers.seconds or 0
    elseif what == "/_rule" then
        obey(numbers)
    elseif what == "/_forget" then
        forget()
    elseif what ~= "/_facts" then
        return answer(404, "")
    end
    local out = {}
    for name, number in pairs(facts) do
        out[#out + 1] = string.format('"%s": %.6f', name, number)
    end
    return answer(200, "{" .. table.concat(out, ", ") .. "}\n", "application/json")
end

return stand_in
