-- wrk: spreads requests over routes and keys. Arguments: number of routes, file of keys or "-",
-- header that carries them.
local requests = {}
local at = 0

function init(args)
    local routes, keys = tonumber(args[1]), {}
    if args[2] ~= "-" then
        for key in io.lines(args[2]) do keys[#keys + 1] = key end
    end
    for n = 1, 1000 do
        -- Strides without a common factor with either count, so that neighbours are far apart.
        local headers = { Host = "r" .. ((n * 7919) % routes) .. ".bench.test" }
        if #keys > 0 then headers[args[3]] = keys[(n * 613) % #keys + 1] end
        requests[n] = wrk.format("GET", "/bench", headers)
    end
end

function request()
    at = at % #requests + 1
    return requests[at]
end
